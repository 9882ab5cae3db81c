import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { createNode } from '../../../src/node/node.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import { requireLibraries } from '../../../src/steps/require-libraries.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { emptyNode, inventoryOf, runningNode } from '../some-cluster.ts'

let home: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-libraries-'))
  for (const folder of ['bin', 'lib']) await mkdir(join(home, folder))
  for (const name of ['libpqwalreceiver', 'auto_explain']) await writeFile(join(home, `lib/${name}.so`), '')
})
afterEach(() => rm(home, { recursive: true, force: true }))

interface Wish {
  readonly live: string
  readonly path?: string
  readonly wished?: string
  readonly facts?: Partial<NodeFacts>
}

/** pg2 is to be cloned from pg1, which loads `live`; its programs lie in `home`. */
async function check({ live, path = '$libdir', wished, facts }: Wish) {
  const [pg1, pg2] = inventoryOf(['pg1', 'pg2']).nodes.map((settings) => {
    const parameters: Record<string, string> =
      wished === undefined ? {} : { shared_preload_libraries: wished }
    const own = { ...settings, postgres: { ...settings.postgres, parameters } }
    return createNode(own, 'shop', createShellTransport(home))
  })
  const seen = (one: NodeFacts) => ({ ...{ at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(one) } })
  const installed = [{ directory: join(home, 'bin'), major: 15, minor: 18, version: '15.18' }]
  const { dataDir } = pg2!.settings.postgres
  pg1!.lastSurvey = seen(runningNode('pg1', {}))
  pg1!.sql = async () => ({ json: async () => [live, path] }) as unknown as SqlSession
  pg2!.lastSurvey = seen(emptyNode('pg2', { installed, configDirectory: dataDir, ...facts }))
  const ctx: StepContext = {
    ...{ node: pg2!, on: (name) => (name === pg1!.name ? pg1! : pg2!), timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  return await requireLibraries(nodeName('pg2'), nodeName('pg1'), false).check(ctx)
}

test('what the source loads at its start is looked for where the new standby has its libraries', async () => {
  const lacks = await check({ live: 'auto_explain, "pg_cron", $libdir/pgaudit' })
  expect(lacks).toMatchObject({ is: 'refused', error: { message: 'pg2 lacks the library pg_cron, pgaudit' } })
  expect(await check({ live: 'auto_explain' })).toMatchObject({ is: 'satisfied' })
  // What the inventory says of this node wins over what is copied.
  expect(await check({ live: 'pg_cron', wished: 'auto_explain' })).toMatchObject({ is: 'satisfied' })
})

test('nothing is refused where it cannot be known', async () => {
  const live = 'pg_cron'
  for (const wish of [
    { live, path: '$libdir:/opt/lib' },
    { live: '/opt/lib/pg_cron' },
    { live, facts: { configDirectory: '/etc/postgresql/15/main' } },
    { live, facts: { dataDirectoryState: 'instance' as const } },
  ])
    expect(await check(wish)).toMatchObject({ is: 'satisfied' })
  await rm(join(home, 'lib/libpqwalreceiver.so'))
  expect(await check({ live })).toMatchObject({ is: 'satisfied' })
})
