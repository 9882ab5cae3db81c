import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'

const passwords = { generated: 'S3cretForTheTest-Xyzzy', awkward: `a'b\\c:d%s $(id) "é` }

describeOnHosts('the replication password', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
    cluster = await TestCluster.create(hosts)
  })
  afterAll(() => hosts?.destroy())

  for (const [kind, password] of Object.entries(passwords)) {
    const number =
      kind === 'awkward' ? 'P-46 and P-45: one with quotes, colons and blanks' : 'P-45: a plain one'
    it(`${number} serves the whole life cycle, and is nowhere but in passfiles of mode 0600`, async () => {
      const file = join(hosts.directory, `${kind}.pw`)
      await writeFile(file, `${password}\n`, { mode: 0o600 })
      const parameters = {
        log_statement: 'all',
        log_connections: 'on',
        log_min_duration_statement: 0,
        log_replication_commands: 'on',
      }
      await cluster.writeInventory({ postgres: { parameters }, replication: { password_file: file } })
      const said: string[] = []
      const replctl = async (args: readonly string[]) => {
        const result = await cluster.replctl([...args, '--verbose', '--json'])
        said.push(result.stdout, result.stderr)
        return result
      }
      const samplers = hosts.names.map((host) => new Sampler(hosts, host))
      try {
        expect((await replctl(['init', 'primary'])).exitCode).toBe(0)
        await cluster.server('pg1').sql('CREATE TABLE t AS SELECT 1 AS n')
        expect((await replctl(['add-standby', 'pg2', 'pg3'])).exitCode).toBe(0)
        expect((await replctl(['verify'])).exitCode).toBe(0)
        // The primary forgets the password: a login that fails tells nothing either.
        await cluster.server('pg1').sql("ALTER ROLE replicator VALID UNTIL '2001-01-01'")
        await cluster.succeed(['remove-standby', 'pg3', '--purge'])
        const failing = await replctl(['add-standby', 'pg3'])
        expect([failing.exitCode, failing.json.problems[0].code]).toEqual([5, 'replication-login-failed'])
        await cluster.server('pg1').sql("ALTER ROLE replicator VALID UNTIL 'infinity'")
        expect((await replctl(['add-standby', 'pg3'])).exitCode).toBe(0)
        await cluster.server('pg1').kill9()
        expect((await replctl(['promote', 'pg2'])).exitCode).toBe(0)
        await cluster.server('pg2').awaitStreaming('shop_pg3')
      } finally {
        said.push(...(await Promise.all(samplers.map((sampler) => sampler.stop()))))
      }
      const forms = [
        password,
        encodeURIComponent(password),
        Buffer.from(password).toString('base64'),
        password.slice(4),
      ]
      for (const form of forms) expect(said.filter((text) => text.includes(form))).toEqual([])
      for (const host of hosts.names) {
        for (const form of forms) {
          const { stdout } = await hosts.exec(host, ['sh', '-c', searchScript, 'sh', form])
          const places = stdout.split('\n').filter(Boolean)
          expect(
            places.filter((place) => !place.startsWith('600 postgres ')),
            `${form} on ${host}`,
          ).toEqual([])
          // The search does find it where it has to be; colons and backslashes stand there in another form.
          if (kind === 'generated' && form === password) {
            expect(places).toContain('600 postgres /var/lib/postgresql/.replctl/shop/pgpass')
          }
        }
        const loose = await hosts.exec(host, 'find /var/lib/postgresql/.replctl -perm /077')
        expect(loose.stdout).toBe('')
      }
      for (const host of hosts.names) {
        await cluster.server(host).kill9()
        await hosts.exec(host, 'rm -rf /var/lib/postgresql/15/shop /var/lib/postgresql/.replctl')
      }
    })
  }
})

/** Files that hold a text, with mode and owner: where logs, configuration, state, temporary files and histories lie. */
const searchScript = `
grep -rlaF -s -e "$1" /var/lib/postgresql /var/log /tmp /run /home /root /etc/postgresql 2>/dev/null |
  while IFS= read -r file; do stat -c '%a %U %n' "$file"; done
:
`

/** Samples all command lines on a host every 50 ms. */
class Sampler {
  readonly #child: ChildProcess
  #seen = new Set<string>()

  constructor(hosts: TestHosts, host: string) {
    const script = 'while :; do ps -e -ww -o args=; sleep 0.05; done'
    const target = ['--target', String(hosts.initPid(host)), '--mount', '--pid']
    this.#child = spawn('nsenter', [...target, 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'ignore'] })
    createInterface({ input: this.#child.stdout! }).on('line', (line) => this.#seen.add(line))
  }

  /** All lines that were seen. */
  async stop(): Promise<string> {
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await ended
    if (this.#seen.size < 5) throw new Error('nothing was sampled')
    return [...this.#seen].join('\n')
  }
}
