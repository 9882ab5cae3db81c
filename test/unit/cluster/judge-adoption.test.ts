import { describe, expect, it } from 'vitest'
import {
  type AdoptionInput,
  judgeAdoption,
  namesGivenUp,
  refusalOfForeignPrimary,
  refusalToAdopt,
  slotsAtRisk,
  standbysLeftBehind,
  wishedSettings,
} from '../../../src/cluster/judge-adoption.ts'
import { connection, emptyNode, lsn, ours, recordOf, runningNode, slot } from '../some-cluster.ts'

const setting = (
  value: string,
  context = 'postmaster',
  source = 'configuration file',
  unit: string | null = null,
) => ({
  ...{ value, context, source, unit },
})

const debian: AdoptionInput = {
  node: 'pg1',
  isRunning: true,
  settings: {
    listen_addresses: setting('localhost'),
    wal_level: setting('replica'),
    cluster_name: setting('15/main'),
    wal_keep_size: setting('0', 'sighup', 'default', 'MB'),
  },
  autoConf: new Map(),
  commandLine: [],
  needed: new Map([
    ['listen_addresses', '*'],
    ['wal_level', 'replica'],
    ['cluster_name', 'shop'],
    ['wal_keep_size', '256MB'],
  ]),
  wished: [],
  restartLosesOptions: false,
}

describe('taking an instance over', () => {
  it('changes only what is too low, and says how', () => {
    const { changes, isRestartNeeded, refusal } = judgeAdoption(debian)
    expect(
      changes.map(({ name, live, needed, change }) => `${name}: ${live} -> ${needed}, ${change}`),
    ).toEqual([
      'listen_addresses: localhost -> *, restart',
      'cluster_name: 15/main -> shop, restart',
      'wal_keep_size: 0 -> 256MB, reload',
    ])
    expect(isRestartNeeded).toBe(true)
    expect(refusal).toBeNull()
  })

  it('is no reason for a restart where only the name would change, or where it is stopped', () => {
    const settings = { ...debian.settings, listen_addresses: setting('*') }
    expect(judgeAdoption({ ...debian, settings }).isRestartNeeded).toBe(false)
    expect(judgeAdoption({ ...debian, isRunning: false }).isRestartNeeded).toBe(false)
  })

  it('a setting of an extension that is not loaded asks for no restart of its own', () => {
    const needed = new Map([['pg_stat_statements.max', '500']])
    expect(judgeAdoption({ ...debian, needed, wished: ['pg_stat_statements.max'] }).changes[0]?.change).toBe(
      'reload',
    )
  })

  describe('an instance whose commits wait for a standby', () => {
    const name = 'synchronous_standby_names'
    const judge = (mode: 'async' | 'sync', needed: string, autoConf = new Map<string, string>()) =>
      judgeAdoption({
        ...debian,
        settings: { [name]: setting('FIRST 1 (old2)', 'sighup') },
        needed: new Map([[name, needed]]),
        wished: wishedSettings({}, mode),
        autoConf,
      })

    it('goes on so where the cluster is to be synchronous, until it has standbys of ours', () => {
      expect(judge('sync', '').changes).toEqual([])
      expect(judge('sync', 'FIRST 1 (shop_pg2)').changes).toMatchObject([
        { name, needed: 'FIRST 1 (shop_pg2)' },
      ])
    })

    it('gives that up only where the cluster is to be asynchronous, which is told', () => {
      const { changes } = judge('async', '')
      expect(namesGivenUp(changes)).toBe('FIRST 1 (old2)')
      expect(namesGivenUp(judge('sync', '').changes)).toBeNull()
      expect(namesGivenUp(judge('sync', 'FIRST 1 (shop_pg2)').changes)).toBeNull()
    })

    it('has them in a file that replctl’s own comes after', () => {
      const { refusal } = judge('sync', '', new Map([[name, 'old2']]))
      expect(refusal?.hint).toContain(`ALTER SYSTEM RESET ${name};`)
    })
  })

  it('what the server spells otherwise is in force where it comes from replctl.conf as that stands', () => {
    const own = { ...setting('pglz', 'superuser'), isFromOwnFile: true }
    const judge = (live: object, written: string, needed = 'on') =>
      judgeAdoption({
        ...debian,
        settings: { wal_compression: { ...own, ...live } },
        needed: new Map([['wal_compression', needed]]),
        written: new Map([['wal_compression', written]]),
        wished: ['wal_compression'],
      }).changes.map((change) => change.name)
    expect(judge({}, 'on')).toEqual([])
    expect(judge({ isFromOwnFile: false }, 'on')).toEqual(['wal_compression'])
    // The inventory says something else by now, or the file does not say it yet.
    expect(judge({}, 'on', 'lz4')).toEqual(['wal_compression'])
  })

  it('a word in capitals is the same word: no restart for it', () => {
    const judge = (isEnum: boolean) =>
      judgeAdoption({
        ...debian,
        settings: { huge_pages: { ...setting('try'), isEnum } },
        needed: new Map([['huge_pages', 'TRY']]),
        wished: ['huge_pages'],
      })
    expect(judge(true)).toMatchObject({ changes: [], isRestartNeeded: false })
    // A path, say: capitals matter.
    expect(judge(false).isRestartNeeded).toBe(true)
  })

  it('a slot that keeps more WAL than it may afterwards is not lost: that is refused', () => {
    const limit = (live: string, needed: string) =>
      judgeAdoption({
        ...debian,
        settings: { max_slot_wal_keep_size: setting(live, 'sighup', 'default', 'MB') },
        needed: new Map([['max_slot_wal_keep_size', needed]]),
      }).changes
    const facts = runningNode('pg1', {
      currentLsn: lsn('C/80000000'),
      slots: [slot('reports', '0/1', { type: 'logical' }), slot('near', 'C/7F000000')],
    })
    const refusal = slotsAtRisk(facts, limit('-1', '10GB'))
    expect(refusal?.code).toBe('settings-too-low')
    expect(refusal?.detail).toContain('"reports" keeps 53687091199 bytes')
    expect(refusal?.detail).not.toContain('near')
    expect(slotsAtRisk(facts, limit('-1', '60GB'))).toBeNull()
    expect(slotsAtRisk(facts, limit('10GB', '-1'))).toBeNull()
    // As it was before: nothing is made worse.
    expect(slotsAtRisk(facts, limit('10GB', '10GB'))).toBeNull()
    const lost = slot('reports', '0/1', { walStatus: 'lost' })
    expect(
      slotsAtRisk(runningNode('pg1', { currentLsn: lsn('C/80000000'), slots: [lost] }), limit('-1', '10GB')),
    ).toBeNull()
  })

  it('ALTER SYSTEM in the way is refused with the exact statements', () => {
    const autoConf = new Map([
      ['wal_level', 'minimal'],
      ['listen_addresses', 'localhost'],
      ['work_mem', '5MB'],
    ])
    const { refusal } = judgeAdoption({ ...debian, autoConf })
    expect(refusal?.code).toBe('setting-overridden')
    expect(refusal?.hint).toContain('ALTER SYSTEM RESET listen_addresses; ALTER SYSTEM RESET wal_level;')
    expect(refusal?.hint).not.toContain('work_mem')
  })

  it('ALTER SYSTEM to something as good is not in the way', () => {
    const autoConf = new Map([
      ['wal_level', 'logical'],
      ['wal_keep_size', '1024'],
    ])
    expect(judgeAdoption({ ...debian, autoConf }).refusal).toBeNull()
  })

  it('a value on the command line is refused, and so is a restart that would lose others', () => {
    const onCommandLine = setting('localhost', 'postmaster', 'command line')
    const settings = { ...debian.settings, listen_addresses: onCommandLine }
    expect(judgeAdoption({ ...debian, settings }).refusal?.detail).toContain('listen_addresses is localhost')
    const losing = { ...debian, restartLosesOptions: true, commandLine: ['shared_buffers'] }
    expect(judgeAdoption(losing).refusal?.detail).toContain('shared_buffers')
    expect(judgeAdoption({ ...losing, isRunning: false }).refusal).toBeNull()
  })
})

describe('what is not adopted', () => {
  const stopped = { dataDirectoryState: 'instance', dataMajor: 15 } as const
  const control = (state: string) => ({ control: { state } as never })
  it.each<[string, Parameters<typeof emptyNode>[1], string | null, string | null]>([
    ['a missing directory', {}, null, 'node-not-built'],
    ['a folder with other things', { dataDirectoryState: 'not-an-instance' }, null, 'foreign-data-directory'],
    ['a stopped standby', { ...stopped, hasStandbySignal: true }, null, 'not-a-primary'],
    [
      'a standby whose signal was removed',
      { ...stopped, ...control('shut down in recovery') },
      null,
      'not-a-primary',
    ],
    [
      'an instance of another cluster',
      { ...stopped, ...control('shut down') },
      '# Made by replctl for cluster "bar". C',
      'foreign-cluster',
    ],
    [
      'our own again is fine',
      { ...stopped, ...control('shut down') },
      '# Made by replctl for cluster "shop". C',
      null,
    ],
    ['a stopped primary is fine', { ...stopped, ...control('shut down') }, null, null],
    ['a crashed primary is fine', { ...stopped, ...control('in production') }, null, null],
  ])('%s', (_, changes, ownText, code) => {
    const refusal = refusalToAdopt(emptyNode('pg1', changes), '/data', 'shop', ownText)
    expect(refusal?.code ?? null).toBe(code)
  })
})

describe('a primary that standbys are to be added to', () => {
  const rendered = (name: string) => `# Made by replctl for cluster "${name}". Changes here are lost.\n`
  const mark = {
    ...{ cluster: 'shop', node: 'pg1', dataDirectory: '/data', systemIdentifier: ours, inode: '7' },
    phase: 'done' as const,
  }

  it('is replctl’s own by what stands on its host: its mark, its record, or its replctl.conf', () => {
    for (const facts of [
      runningNode('pg1', {}, { mark }),
      runningNode('pg1', {}, { record: recordOf('pg1', ['pg1']) }),
    ])
      expect(refusalOfForeignPrimary(facts, 'shop', null)).toBeNull()
    expect(refusalOfForeignPrimary(runningNode('pg1', {}), 'shop', rendered('shop'))).toBeNull()
  })

  it('is taken over first where it is nobody’s, where it is another cluster’s, or stands in place of what was ours', () => {
    const other = { ...mark, systemIdentifier: '99' }
    const told = (facts: ReturnType<typeof runningNode>, text: string | null) =>
      refusalOfForeignPrimary(facts, 'shop', text)
    const nobodys = told(runningNode('pg1', {}), null)
    expect(nobodys?.code).toBe('foreign-cluster')
    expect(nobodys?.hint).toContain('replctl init primary pg1 --adopt')
    expect(told(runningNode('pg1', {}, { mark: other }), null)?.code).toBe('foreign-cluster')
    expect(told(runningNode('pg1', {}), rendered('till'))?.detail).toContain('"till"')
  })
})

describe('standbys that receive from an instance that is taken over', () => {
  const change = (name: string, live: string, needed: string) => ({
    ...{ name, live, needed, change: 'restart' as const, canWait: false },
  })
  const raised = change('max_wal_senders', '10', '32')
  const logical = slot('app', '0/1000000', { type: 'logical' })

  it('are told of where it is raised above what they may have', () => {
    const facts = runningNode('pg1', { replication: [connection('pg2', 'async')] })
    const told = standbysLeftBehind(facts, [change('wal_level', 'replica', 'logical'), raised])
    expect(told?.detail).toContain('max_wal_senders (10 -> 32)')
    expect(told?.detail).toContain('shop_pg2')
    expect(standbysLeftBehind(facts, [change('max_slot_wal_keep_size', '-1', '10GB')])).toBeNull()
  })

  it('are no logical subscribers, and no running copy', () => {
    const replication = [connection('app', 'async')]
    expect(standbysLeftBehind(runningNode('pg1', { replication, slots: [logical] }), [raised])).toBeNull()
    const copy = [connection('pg2', 'async', { state: 'backup' })]
    expect(standbysLeftBehind(runningNode('pg1', { replication: copy }), [raised])).toBeNull()
  })
})
