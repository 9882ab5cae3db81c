import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { configuredUpstream } from '../../../src/cluster/topology.ts'
import { shellScript } from '../../../src/command.ts'
import { factsScript } from '../../../src/node/facts-script.ts'
import { createNode } from '../../../src/node/node.ts'
import { readHostFacts } from '../../../src/node/survey.ts'
import { inventoryOf } from '../some-cluster.ts'
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
