import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { awaitCondition, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost, writersNow } from '../kit/observe.ts'

const archiveDir = '/var/lib/postgresql/archive'
const patience = { timeoutMs: 280_000 }

describeOnHosts('a change of the primary while the archive host is away', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: ['pg1', 'pg2', 'backup1'].map((name) => ({ name })) })
    cluster = await TestCluster.create(hosts, {
      nodes: ['pg1', 'pg2'],
      inventory: {
        archive: { host: hosts.addressOf('backup1'), user: 'postgres', dir: archiveDir },
        ssh: { connect_timeout: '3s' },
        ...openToControlHost,
      },
    })
    await cluster.succeed(['init', 'primary', 'pg1'], patience)
    await cluster.succeed(['add-standby', 'pg2'], patience)
    // To a timeline that has a history: a server asks for it as it becomes a primary.
    await cluster.succeed(['switchover', 'pg2'], patience)
  }, 600_000)
  afterAll(() => hosts?.destroy())

  const run = (...args: string[]) => cluster.replctl([...args, '--json'], patience)
  const writers = () => writersNow(hosts, ['pg1', 'pg2'])
  const codesOf = (result: ReplctlResult): string[] =>
    result.json.problems.map((one: { code: string }) => one.code)
  const timelineOf = async (node: string) =>
    Number(
      await cluster
        .server(node)
        .sqlValue("SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"),
    )
  const comeBack = async (primary: string) => {
    await hosts.startSshd('backup1')
    await hosts.restoreLink('backup1')
    const history = `${(await timelineOf(primary)).toString(16).toUpperCase().padStart(8, '0')}.history`
    await awaitCondition(
      `${history} is archived`,
      async () => {
        await cluster.server(primary).sql("SELECT pg_create_restore_point('more')")
        await cluster.server(primary).sql('SELECT pg_switch_wal()')
        const { stdout } = await hosts.exec('backup1', `ls ${archiveDir}/*/wal`, { user: 'postgres' })
        return stdout.includes(history)
      },
      { timeoutMs: 180_000 },
    )
  }

  const ways: readonly (readonly [string, () => Promise<void>])[] = [
    ['refuses connections', () => hosts.stopSshd('backup1', { sessions: true })],
    ['is silent', () => hosts.cutLink('backup1')],
  ]

  it.each(ways)(
    'ends when it %s: a switchover with --allow-unarchived, a promotion with a warning',
    async (_way, goAway) => {
      const [primary = '', standby = ''] = (await writers())[0] === 'pg1' ? ['pg1', 'pg2'] : ['pg2', 'pg1']
      const timeline = await timelineOf(primary)

      await goAway()
      const refused = await run('switchover', standby)
      expect([refused.exitCode, codesOf(refused)[0]], refused.stderr).toEqual([3, 'archive-failing'])
      expect(refused.json.problems[0].hint).toContain('--allow-unarchived')
      expect(await writers()).toEqual([primary])
      const made = await run('switchover', standby, '--allow-unarchived', '--timeout', '40s')
      expect(made.exitCode, made.stderr).toBe(0)
      expect(await writers()).toEqual([standby])
      expect(await timelineOf(standby)).toBe(timeline + 1)
      await comeBack(standby)

      await cluster.server(standby).stop('immediate')
      await goAway()
      const promoted = await run('promote', primary, '--timeout', '40s')
      expect(promoted.exitCode, promoted.stderr).toBe(0)
      expect(codesOf(promoted)).toContain('archive-gap')
      expect(await writers()).toEqual([primary])
      expect(await timelineOf(primary)).toBe(timeline + 2)
      await comeBack(primary)
      const rejoined = await run('rejoin', standby)
      expect(rejoined.exitCode, rejoined.stderr).toBe(0)
    },
  )
})
