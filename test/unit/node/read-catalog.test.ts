import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createNode } from '../../../src/node/node.ts'
import { parseCatalogs, readCatalogs } from '../../../src/node/read-catalog.ts'
import { printBackupMetadata } from '../../../src/postgres/backup-metadata.ts'
import { someBackup, systemIdentifier } from '../some-backup.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

const metadata = someBackup('20261126T061500Z')
const output = `@@system ${systemIdentifier}
@@incoming 20261126T070000Z
{"cluster":"shop","source":"pg2","label":"x","parent":null,"startedAt":"2026-11-26T07:00:00Z","postgresVersion":"15.18","major":15}
@@backup ${metadata.id}
@@files
total 8
-rw------- 1 102 104     50 Nov 26 05:49 backup_manifest
-rw------- 1 102 104   1000 Nov 26 05:49 base.tar.zst
drwx------ 2 102 104   4096 Nov 26 05:49 a folder
@@metadata
${printBackupMetadata(metadata)}
@@check

@@backup broken
@@files
total 0
@@metadata

@@check

@@wal
000000010000000000000001.zst
000000010000000000000002
000000010000000000000003.partial
00000002.history
@@history 00000002.history
1\t0/5000148\tno recovery target specified

@@system 8
@@wal
`

describe('the catalog as the archive host prints it', () => {
  const [first, second] = parseCatalogs(output)

  it('keeps system identifiers apart', () => {
    expect([first?.systemIdentifier, second?.systemIdentifier]).toEqual([systemIdentifier, '8'])
    expect(second?.backups).toEqual([])
  })

  it('reads backups with their files, and says what is wrong with one that cannot be read', () => {
    expect(first?.backups.map((one) => [one.id, one.metadata?.id ?? one.fault])).toEqual([
      [metadata.id, metadata.id],
      ['broken', 'it is missing, empty, or cannot be read'],
    ])
    expect([...(first?.backups[0]?.files ?? [])]).toEqual([
      ['backup_manifest', 50],
      ['base.tar.zst', 1000],
      ['a folder', null],
    ])
  })

  it('counts complete segments only, whatever their suffix', () => {
    expect([...(first?.segments ?? [])]).toEqual(['000000010000000000000001', '000000010000000000000002'])
    expect(first?.histories.get(2)).toContain('0/5000148')
    expect([...(first?.partials ?? [])]).toEqual(['000000010000000000000003'])
  })

  it('knows what is being taken', () => {
    expect(first?.incoming).toMatchObject([{ id: '20261126T070000Z', request: { source: 'pg2' } }])
  })
})

it('what was begun long ago is young while its copy, or its proof, came to an end not long ago', async () => {
  const home = mkdtempSync(join(tmpdir(), 'replctl-catalog-'))
  const script = `
mkdir -p archive/7/backup && cd archive/7/backup
for id in old copied proved new; do mkdir .incoming-$id; echo '{}' > .incoming-$id/request.json; done
touch .incoming-copied/taken .incoming-proved/taken .incoming-proved/proved
touch -t 202001010000 .incoming-old/request.json .incoming-*d/request.json .incoming-proved/taken`
  execFileSync('sh', ['-c', script], { cwd: home })
  const node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
  const [catalog] = await readCatalogs(node, join(home, 'archive'))
  expect(catalog?.incoming.map(({ id, isFresh }) => [id, isFresh])).toEqual([
    ['copied', true],
    ['new', true],
    ['old', false],
    ['proved', true],
  ])
  rmSync(home, { recursive: true })
})
