import { describe, expect, it } from 'vitest'
import { LostChanges, LostTransactions } from '../../../src/postgres/lost-transactions.ts'
import { parseLsn } from '../../../src/postgres/lsn.ts'
import { parseWalRecord, readWalEnd, type WalRecord } from '../../../src/postgres/waldump.ts'
import { fixture, majorsWith } from './fixture.ts'

const head =
  'rmgr: Heap        len (rec/tot):     54/  4382, tx:        728, lsn: 0/017814E0, prev 0/01781468, desc: '
const block = 'blkref #0: rel 1663/5/16384 blk 7 FPW'
const relation = '1663/5/16384'
const read = (desc: string, manager = 'Heap') =>
  parseWalRecord(`${head.replace('Heap       ', manager.padEnd(11))}${desc}`)

describe('parseWalRecord', () => {
  it.each([
    // Up to 11 there were no flags; 12 to 15 print words, 16 and newer names with colons.
    ['INSERT off 98, ', { is: 'insert', relation, at: { block: 7, offset: 98 } }],
    ['INSERT off 98 flags 0x00, ', { is: 'insert', relation, at: { block: 7, offset: 98 } }],
    ['INSERT+INIT off: 1, flags: 0x00, ', { is: 'insert', relation, at: { block: 7, offset: 1 } }],
    ['DELETE off 6 KEYS_UPDATED , ', { is: 'delete', relation, at: { block: 7, offset: 6 } }],
    ['DELETE off 6 flags 0x00 KEYS_UPDATED , ', { is: 'delete', relation, at: { block: 7, offset: 6 } }],
    ['DELETE off 6 flags 0x08 , ', { is: 'kill', relation, at: { block: 7, offset: 6 } }],
    [
      'DELETE xmax: 761, off: 6, infobits: [KEYS_UPDATED], flags: 0x00, ',
      { is: 'delete', relation, at: { block: 7, offset: 6 } },
    ],
    [
      'HOT_UPDATE off 98 xmax 728 ; new off 100 xmax 0, ',
      { is: 'update', relation, from: { block: 7, offset: 98 }, to: { block: 7, offset: 100 } },
    ],
    [
      'HOT_UPDATE old_xmax: 758, old_off: 98, old_infobits: [], flags: 0x20, new_xmax: 0, new_off: 100, ',
      { is: 'update', relation, from: { block: 7, offset: 98 }, to: { block: 7, offset: 100 } },
    ],
    ['LOCK off 5: xid 730: flags 0x00 LOCK_ONLY EXCL_LOCK , ', { is: 'other' }],
  ])('reads %s', (desc, action) => {
    expect(read(desc + block)).toEqual({ xid: 728, lsn: '0/17814E0', ...action })
  })

  it('finds the old version of an updated row on its own page', () => {
    const blocks = 'blkref #0: rel 1663/5/16384 blk 1, blkref #1: rel 1663/5/16384 blk 0'
    expect(read(`UPDATE off 5 xmax 730 flags 0x00 ; new off 101 xmax 0, ${blocks}`)).toMatchObject({
      from: { block: 0, offset: 5 },
      to: { block: 1, offset: 101 },
    })
  })

  it('knows the places of a COPY on a page that it begins, and from 16 on where they are printed', () => {
    const at = (desc: string) => read(`${desc}, ${block}`, 'Heap2')
    expect(at('MULTI_INSERT 3 tuples flags 0x02')).toMatchObject({
      is: 'multi-insert',
      count: 3,
      offsets: null,
    })
    expect(at('MULTI_INSERT+INIT 3 tuples flags 0x02')).toMatchObject({ count: 3, offsets: [1, 2, 3] })
    expect(at('MULTI_INSERT ntuples: 2, flags: 0x02, offsets: [4, 9]')).toMatchObject({ offsets: [4, 9] })
    expect(at('MULTI_INSERT ntuples: 2, flags: 0x02')).toMatchObject({ count: 2, offsets: null })
  })

  it('reads ends of transactions with their subtransactions and dropped files', () => {
    const at = (desc: string) => read(desc, 'Transaction')
    expect(
      at(
        'COMMIT 2026-11-26 05:50:00.217199 UTC; rels: base/5/16401 pg_tblspc/16500/PG_15_202209061/5/16402; subxacts: 729 730',
      ),
    ).toMatchObject({
      ...{
        is: 'commit',
        of: 0,
        subxacts: [729, 730],
        time: '2026-11-26 05:50:00.217199 UTC',
        wasPrepared: false,
      },
      dropped: ['1663/5/16401', '16500/5/16402'],
    })
    expect(at('COMMIT_PREPARED 736: 2026-11-26 05:49:59.965798 UTC; subxacts: 737')).toMatchObject({
      of: 736,
      subxacts: [737],
    })
    expect(at('ABORT 2026-11-26 05:49:59.934905 UTC; subxacts: 740')).toMatchObject({
      is: 'abort',
      subxacts: [740],
    })
    expect(at('ABORT_PREPARED 737: 2026-11-26 05:50:00.008648 UTC')).toMatchObject({ is: 'abort', of: 737 })
    expect(at('PREPARE gid one: 2 three: 2026-11-26 05:49:59.937273 UTC')).toMatchObject({
      is: 'prepare',
      gid: 'one: 2 three',
    })
  })

  it('reads which transaction id comes next', () => {
    expect(
      read('RUNNING_XACTS nextXid 731 latestCompletedXid 730 oldestRunningXid 731', 'Standby'),
    ).toMatchObject({ nextXid: 731 })
    const checkpoint =
      'CHECKPOINT_ONLINE redo 0/1781468; tli 1; prev tli 1; fpw true; xid 0:728; oid 24576; multi 1; offset 0; online'
    expect(read(checkpoint, 'XLOG')).toMatchObject({ is: 'next-xid', nextXid: 728 })
  })

  it('takes nothing else for a record', () => {
    for (const line of [
      '',
      'first record is after 0/5000000, at 0/5000028, skipping over 40 bytes',
      'status 1',
    ]) {
      expect(parseWalRecord(line)).toBeUndefined()
    }
  })
})

describe('readWalEnd', () => {
  it('tells the end of WAL, which pg_waldump calls an error, from a missing segment and from a failure', () => {
    expect(readWalEnd(0, '')).toEqual({ is: 'complete' })
    for (const said of ['wanted 24, got 0', 'expected at least 24, got 0']) {
      const text = `pg_waldump: error: error in WAL record at 0/17A0518: invalid record length at 0/17A0550: ${said}`
      expect(readWalEnd(1, text)).toEqual({ is: 'end-of-wal', next: '0/17A0550' })
    }
    expect(readWalEnd(1, 'pg_waldump: fatal: could not find a valid record after 0/3000000')).toMatchObject({
      is: 'end-of-wal',
    })
    expect(
      readWalEnd(
        1,
        'pg_waldump: error: could not find file "000000010000000000000005": No such file or directory',
      ),
    ).toEqual({
      is: 'segment-missing',
      segment: '000000010000000000000005',
    })
    expect(readWalEnd(1, 'pg_waldump: error: out of memory')).toMatchObject({
      is: 'failed',
      said: expect.stringContaining('memory'),
    })
  })
})

it('a transaction that is still prepared is told by its id where pg_waldump (11, 12) does not tell its name', () => {
  const lost = new LostTransactions(parseLsn('0/2000000'))
  // xact_desc() of 11 and 12 describes COMMIT and ABORT only.
  for (const [xid, lsn, desc] of [
    [741, '0/02002A18', 'PREPARE '],
    [742, '0/02002B18', 'PREPARE gid two: 2026-11-26 06:45:04.716309 UTC'],
    [743, '0/02002C18', 'PREPARE'],
    [0, '0/02002D18', 'ABORT_PREPARED 743: 2026-11-26 06:45:05.112793 UTC'],
  ]) {
    const line = `rmgr: Transaction len (rec/tot):    250/   250, tx:        ${xid}, lsn: ${lsn}, prev 0/020029D8, desc: ${desc}`
    lost.add(parseWalRecord(line)!)
  }
  expect(lost.preparedNames).toEqual([expect.stringMatching(/^transaction 741 \(/), 'two'])
})

describe.each(majorsWith('waldump.txt'))('what pg_waldump of PostgreSQL %i printed', (major) => {
  const fork = parseLsn(fixture(`pg${major}/waldump-fork.txt`).trim())
  const records = fixture(`pg${major}/waldump.txt`)
    .split('\n')
    .map(parseWalRecord)
    .filter((record): record is WalRecord => record !== undefined)
  const lost = new LostTransactions(fork)
  for (const record of records) lost.add(record)
  const changes = new LostChanges(lost)
  const ended = records.flatMap((record) => changes.add(record) ?? [])
  const table = changes.relations.get(relation)
  const nokey = [...changes.relations].find(([, one]) => one.standing.most === 3 && one !== table)?.[1]

  it('holds transactions that committed, were rolled back, and are still prepared', () => {
    expect(lost.aborted).toBe(2)
    expect([...lost.prepared.values()]).toEqual(['left open'])
    // Begun before the fork, prepared, and committed after it.
    expect(lost.straddlers).toHaveLength(1)
    expect(lost.committed.has(lost.straddlers[0]!)).toBe(true)
    expect(ended.every(({ changes: count, committedAt }) => count > 0 && committedAt.endsWith('UTC'))).toBe(
      true,
    )
    expect(readWalEnd(1, fixture(`pg${major}/waldump-end.txt`))).toMatchObject({ is: 'end-of-wal' })
  })

  it('boils down to the effect on the state at the fork', () => {
    // New: 501 (the straddler), 1001, 1002, 1004; another version: 5. Gone: 6. Inserted and deleted again: 1005.
    expect(table?.standing).toEqual({ least: 5, most: 5 })
    expect([...(table?.deleted.keys() ?? [])]).toEqual([6])
    expect(table?.vanished).toBe(1)
    expect(nokey?.standing).toEqual({ least: 3, most: 3 })
    expect(changes.sequences.size).toBe(1)
    expect([...changes.createdFiles].length).toBeGreaterThan(2)
  })
})
