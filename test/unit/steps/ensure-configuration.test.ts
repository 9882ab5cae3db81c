import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { NodeFacts, NodeMark } from '../../../src/cluster/facts.ts'
import { loadTemplate } from '../../../src/config/load-template.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { createNode } from '../../../src/node/node.ts'
import { lastValues, parseConfigFile } from '../../../src/postgres/config-file.ts'
import { copyConfigurationFiles } from '../../../src/steps/copy-configuration-files.ts'
import { ensureSettings, keptOfItsOwn } from '../../../src/steps/ensure-configuration.ts'
import { ensureHbaLines } from '../../../src/steps/ensure-hba-lines.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import { inventoryOf, runningNode, stoppedNode } from '../some-cluster.ts'

let home: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-configuration-'))
  for (const folder of ['etc', 'data']) await mkdir(join(home, folder))
})
afterEach(() => rm(home, { recursive: true, force: true }))

test('a clone of a Debian cluster is not told to use folders that only pg_ctlcluster makes, and only for its source', async () => {
  const lines = [
    "data_directory = '/var/lib/postgresql/13/main'",
    "stats_temp_directory = '/var/run/postgresql/13-main.pg_stat_tmp'",
    "external_pid_file = '/var/run/postgresql/13-main.pid'",
    'shared_buffers = 128MB',
  ]
  await writeFile(join(home, 'etc/postgresql.conf'), `${lines.join('\n')}\n`)
  const { ctx, pg1, pg2 } = contextOfClone()
  await copyConfigurationFiles(pg2, pg1).apply!(ctx)
  const text = await readFile(join(home, 'data/postgresql.conf'), 'utf8')
  expect(text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))).toEqual([lines[3]])
})

test('for whom an adopted primary waits is kept for it alone, not for a clone or a standby of it', () => {
  const text = "# Kept as the instance had it\nsynchronous_standby_names = 'old2'\nmax_wal_senders = 40\n"
  const mark = (phase: NodeMark['phase']) => ({ phase }) as NodeMark
  const kept = (phase: NodeMark['phase'], hasStandbySignal: boolean) =>
    Object.keys(keptOfItsOwn(text, { mark: mark(phase), hasStandbySignal }))
  expect(kept('done', false)).toEqual(['synchronous_standby_names', 'max_wal_senders'])
  expect(kept('done', true)).toEqual(['max_wal_senders'])
  expect(kept('cloned', true)).toEqual(['max_wal_senders'])
  expect(kept('cloned', false)).toEqual(['max_wal_senders'])
})

test('a clone whose source has its replctl.conf outside of the data directory keeps what is kept there, but its addresses', async () => {
  const kept = ['listen_addresses = 10.0.0.11', 'max_replication_slots = 60', 'wal_level = logical']
  await writeFile(join(home, 'etc/replctl.conf'), `# Kept as the instance had it\n${kept.join('\n')}\n`)
  const { ctx, pg1, pg2 } = contextOfClone()
  const inventory = inventoryOf(['pg1', 'pg2'])
  const templates = { postgresqlConf: await loadTemplate('postgresql.conf') }
  await ensureSettings(pg2, { inventory, templates } as never, [], { like: pg1 }).apply!(ctx)
  const settings = lastValues(parseConfigFile(await readFile(join(home, 'data/replctl.conf'), 'utf8')))
  expect(settings.get('wal_level')).toBe('logical')
  expect(settings.get('max_replication_slots')).toBe('60')
  expect(settings.get('listen_addresses')).toBe('*')
})

test('what is a link in the data directory of the source is not in the copy, and is fetched', async () => {
  const rules = 'host app app 10.0.0.0/8 scram-sha-256\n'
  await writeFile(join(home, 'etc/postgresql.conf'), 'shared_buffers = 128MB\n')
  await writeFile(join(home, 'elsewhere_hba.conf'), rules)
  await symlink('../elsewhere_hba.conf', join(home, 'etc/pg_hba.conf'))
  const { ctx, pg1, pg2 } = contextOfClone()
  const step = copyConfigurationFiles(pg2, pg1)
  await writeFile(join(home, 'data/postgresql.conf'), 'shared_buffers = 64MB\n')
  expect((await step.check(ctx)).is).toBe('pending')
  await step.apply!(ctx)
  expect(await readFile(join(home, 'data/pg_hba.conf'), 'utf8')).toBe(rules)
  expect(await readFile(join(home, 'data/postgresql.conf'), 'utf8')).toContain('64MB')
  // Neither has pg_ident.conf.
  expect((await step.check(ctx)).is).toBe('satisfied')
})

test('rules of access of a stopped instance are written where it will read them', async () => {
  const [elsewhere, usual] = [join(home, 'elsewhere_hba.conf'), join(home, 'data/pg_hba.conf')]
  await writeFile(join(home, 'data/postgresql.conf'), `hba_file = '${elsewhere}'\n`)
  const { ctx, pg2 } = contextOfClone()
  const inventory = inventoryOf(['pg1', 'pg2'])
  const templates = { pgHba: await loadTemplate('pg_hba.conf') }
  const step = ensureHbaLines(pg2, { inventory, templates } as never)
  await writeFile(elsewhere, 'local all all peer\n')
  await step.apply!(ctx)
  expect(await readFile(elsewhere, 'utf8')).toMatch(/^# BEGIN replctl[\s\S]*\nlocal all all peer\n$/)
  expect((await step.check(ctx)).is).toBe('satisfied')
  // As postgres.parameters has it: replctl.conf wins.
  const another = join(home, 'another_hba.conf')
  await writeFile(another, '')
  await writeFile(join(home, 'data/replctl.conf'), `hba_file = '${another}'\n`)
  await step.apply!(ctx)
  expect(await readFile(another, 'utf8')).toContain('# BEGIN replctl')
  await rm(join(home, 'data/replctl.conf'))
  // Without that file the server would not start: it is not made up of replctl's lines.
  await rm(elsewhere)
  await step.apply!(ctx)
  expect(await readFile(usual, 'utf8')).toContain('# BEGIN replctl')
  await expect(readFile(elsewhere)).rejects.toThrow('ENOENT')
})

test('what a clone that fails had written outside of its data directory is put back, and nothing within it', async () => {
  const hba = join(home, 'data/pg_hba.conf')
  await writeFile(hba, 'local all all peer\n')
  const inventory = inventoryOf(['pg1', 'pg2'])
  const templates = { pgHba: await loadTemplate('pg_hba.conf') }
  for (const dataDir of ['/var/lib/postgresql/15/shop', join(home, 'data')]) {
    const { ctx, pg2 } = contextOfClone({ dataDir, mark: { phase: 'cloned' } as NodeMark })
    const step = ensureHbaLines(pg2, { inventory, templates } as never)
    await step.apply!(ctx)
    expect(await readFile(hba, 'utf8')).toContain('# BEGIN replctl')
    await step.undo!(ctx)
    const isOutside = !dataDir.startsWith(home)
    expect((await readFile(hba, 'utf8')) === 'local all all peer\n').toBe(isOutside)
    // In another process nobody knows what it was.
    const aborting = ensureHbaLines(pg2, { inventory, templates } as never)
    await expect(aborting.undo!(ctx)).resolves.toBeUndefined()
  }
})

/** pg1 has its configuration in `etc`, pg2, which is a clone of it, in `data`. */
function contextOfClone({ dataDir, mark = null }: { dataDir?: string; mark?: NodeMark | null } = {}) {
  const [pg1, pg2] = inventoryOf(['pg1', 'pg2']).nodes.map((settings) => {
    const postgres = { ...settings.postgres, dataDir: dataDir ?? settings.postgres.dataDir }
    return createNode({ ...settings, postgres }, 'shop', createShellTransport(home))
  })
  const seen = (facts: NodeFacts) => ({
    ...{ at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) },
  })
  pg1!.lastSurvey = seen(runningNode('pg1', {}, { configDirectory: join(home, 'etc') }))
  pg2!.lastSurvey = seen(stoppedNode('pg2', '0/3000000', { configDirectory: join(home, 'data'), mark }))
  const ctx: StepContext = {
    ...{ node: pg2!, on: (name) => (name === pg1!.name ? pg1! : pg2!), timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  }
  return { ctx, pg1: pg1!.name, pg2: pg2!.name }
}
