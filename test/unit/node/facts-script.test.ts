import { readFileSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { configuredUpstream } from '../../../src/cluster/configured-upstream.ts'
import { shellScript } from '../../../src/command.ts'
import { factsScript } from '../../../src/node/facts-script.ts'
import { createNode } from '../../../src/node/node.ts'
import { readHostFacts } from '../../../src/node/survey.ts'
import {
  archiveConnectionName,
  renderArchiveFetch,
  renderArchivePush,
} from '../../../src/postgres/archive.ts'
import { inventoryOf, ours } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

let home: string
let data: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-facts-'))
  data = join(home, 'data')
  await mkdir(data)
  await writeFile(join(data, 'PG_VERSION'), '11\n')
})
afterEach(() => rm(home, { recursive: true, force: true }))

test.each([
  ['host=10.0.0.11 port=5433 user=replicator password=s3cret'],
  ['host=10.0.0.11 password=s3cret port=5433'],
  ["password=''s3cret one'' host=10.0.0.11 port=5433"],
  ["host=10.0.0.11 port=5433 password=''s3cret''"],
  ["host=10.0.0.11 port=5433 password=x''s3cret"],
])(
  'the password in primary_conninfo = %j of recovery.conf is left out, and the rest is read',
  async (text) => {
    const lines = `standby_mode = 'on'\nprimary_conninfo = '${text}'\n# it's ours\n`
    await writeFile(join(data, 'recovery.conf'), lines)
    const [settings] = inventoryOf(['pg1']).nodes
    const postgres = { ...settings!.postgres, dataDir: data }
    const node = createNode({ ...settings!, postgres }, 'shop', createShellTransport(home))
    const said = await node.output(shellScript('look', factsScript, ['.replctl/shop', data, '', 'quick']))
    expect(said).not.toContain('s3cret')
    expect(configuredUpstream(readHostFacts(node, said, 0))).toEqual({ host: '10.0.0.11', port: 5433 })
  },
)

test('that nothing can be written into the data directory is told', async () => {
  const [settings] = inventoryOf(['pg1']).nodes
  const look = async (dataDir: string) => {
    const postgres = { ...settings!.postgres, dataDir }
    const node = createNode({ ...settings!, postgres }, 'shop', createShellTransport(home))
    const said = await node.output(shellScript('look', factsScript, ['.replctl/shop', dataDir, '', 'quick']))
    return readHostFacts(node, said, 0).isUnwritable
  }
  expect(await look(data)).toBe(undefined)
  // Root may write where the mode forbids it; nobody may on a file system that is read-only.
  await chmod(data, 0o500)
  if (process.getuid?.() !== 0) expect(await look(data)).toBe(true)
  await chmod(data, 0o700)
  expect(await look(join(data, 'missing'))).toBe(undefined)
})

test('the scripts of the archive are found where they may be run, with the archive that they speak to', async () => {
  const state = join(home, '.replctl/shop')
  await mkdir(state, { recursive: true })
  const [settings] = inventoryOf(['pg1']).nodes
  const postgres = { ...settings!.postgres, dataDir: data }
  const node = createNode({ ...settings!, postgres }, 'shop', createShellTransport(home))
  const look = async () => {
    const said = await node.output(shellScript('look', factsScript, ['.replctl/shop', data, '', 'quick']))
    return readHostFacts(node, said, 0).archiveScripts
  }
  expect(await look()).toEqual({ push: null, fetch: null })
  const template = (name: string) =>
    readFileSync(new URL(`../../../templates/archive/archive-${name}.sh`, import.meta.url), 'utf8')
  const archive = { host: 'backup1', port: 22, user: 'postgres', dir: '/a', systemIdentifier: ours }
  const values = { ...archive, cluster: 'shop', stateDirectory: state, connectTimeoutMs: 1000 }
  const push = renderArchivePush(template('push'), { ...values, compression: 'auto' })
  await writeFile(join(state, 'archive-push'), push, { mode: 0o700 })
  await writeFile(join(state, 'archive-fetch'), renderArchiveFetch(template('fetch'), values), {
    mode: 0o600,
  })
  const connection = archiveConnectionName(archive)
  expect(await look()).toEqual({ push: connection, fetch: null })
  await chmod(join(state, 'archive-fetch'), 0o700)
  expect(await look()).toEqual({ push: connection, fetch: connection })
})
