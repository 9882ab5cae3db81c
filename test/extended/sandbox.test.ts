import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createTestUsers } from '../conformance/kit/users.ts'
import { awaitCondition, runProcess } from '../kit/index.ts'
import { processesNaming, SandboxCaller } from '../kit/sandbox-caller.ts'

const isRoot = process.getuid?.() === 0
const users = createTestUsers()
afterAll(() => users.removeAll())

const callers = isRoot ? ['root', 'an ordinary user'] : ['whoever runs the tests']

describe.each(callers)('a sandbox of %s', (who) => {
  let caller: SandboxCaller
  let dir: string
  let inventory: string
  // biome-ignore lint/suspicious/noExplicitAny: its shape is what is tested
  let up: any
  const urlOf = (name: string): string =>
    up.result.nodes.find((node: { name: string }) => node.name === name).url
  const onCluster = (...args: string[]) => caller.replctl([...args, '--json'], { REPLCTL_CONFIG: inventory })

  beforeAll(async () => {
    caller = new SandboxCaller(who === 'an ordinary user' ? users.add('sandbox') : undefined)
    dir = join(caller.folder, 'state/sandbox')
    inventory = join(dir, 'replctl.yaml')
    const made = await caller.replctl(['sandbox', 'up', '--standbys', '2', '--json', '--dir', dir])
    expect(made.exitCode, made.stderr).toBe(0)
    up = made.json
  })
  afterAll(async () => {
    await caller?.replctl(['sandbox', 'down', '--dir', dir])
    caller?.destroy()
  })

  it('is a primary with two standbys that stream, for psql too', async () => {
    expect(up).toMatchObject({ command: 'sandbox up', cluster: 'sandbox', ok: true, changed: true })
    expect(up.result).toMatchObject({ primary: 'pg1', dir, inventory })
    const states = await caller.psql(urlOf('pg1'), 'SELECT state FROM pg_stat_replication')
    expect(states).toEqual(['streaming', 'streaming'])
    for (const name of ['pg2', 'pg3']) {
      expect(await caller.psql(urlOf(name), 'SELECT pg_is_in_recovery()')).toEqual(['t'])
    }
  })

  it('gives URLs without a secret, of a role that is no superuser and needs its password', async () => {
    const passfile = join(dir, 'pgpass')
    const password = readFileSync(passfile, 'utf8').trim().split(':').at(-1)!
    expect(statSync(passfile).mode & 0o777).toBe(0o600)
    expect(JSON.stringify(up)).not.toContain(password)
    const role = 'SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user'
    expect(await caller.psql(urlOf('pg1'), role)).toEqual(['false'])
    const without = urlOf('pg1').replace(/passfile=.*/, 'passfile=/dev/null')
    await expect(caller.psql(without, 'SELECT 1')).rejects.toThrow(/no password supplied/)
  })

  it('listens on 127.0.0.1 only, on ports that no outgoing connection takes', async () => {
    const addresses = await caller.psql(urlOf('pg1'), 'SHOW listen_addresses')
    expect(addresses).toEqual(['127.0.0.1'])
    const [first] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split('\t')
    for (const name of ['pg1', 'pg2', 'pg3']) {
      expect(Number(new URL(urlOf(name)).port)).toBeLessThan(Number(first))
    }
  })

  it('is already so when it is started again', async () => {
    const again = await caller.replctl(['sandbox', 'up', '--json', '--dir', dir])
    expect(again.exitCode, again.stderr).toBe(0)
    expect(again.json.changed).toBe(false)
    expect(new Set(again.json.result.steps.map((step: { state: string }) => step.state))).toEqual(
      new Set(['satisfied']),
    )
    expect(again.json.result.nodes.map((node: { url: string }) => node.url)).toEqual(
      up.result.nodes.map((node: { url: string }) => node.url),
    )
    const other = await caller.replctl(['sandbox', 'up', '--standbys', '1', '--dir', dir])
    expect(other.exitCode).toBe(3)
  })

  it('is a cluster like any other: status, verify', async () => {
    expect((await onCluster('status')).exitCode).toBe(0)
    const verified = await onCluster('verify')
    expect(verified.exitCode, verified.stderr).toBe(0)
    const status = await caller.replctl(['sandbox', 'status', '--json', '--dir', dir])
    expect(status.exitCode).toBe(0)
    expect(status.json.result).toMatchObject({ primary: 'pg1', dir, inventory })
  })

  it('survives its primary: promote, then up brings the old one back, and keeps what only it may have', async () => {
    await caller.psql(urlOf('pg1'), 'CREATE TABLE orders AS SELECT 42 AS id')
    await awaitCondition('pg2 and pg3 have the row', async () => {
      const rows = await Promise.all(['pg2', 'pg3'].map((name) => caller.psql(urlOf(name), 'TABLE orders')))
      return rows.every((row) => row[0] === '42')
    })
    const pid = Number(readFileSync(join(dir, 'pg1/data/postmaster.pid'), 'utf8').split('\n')[0])
    process.kill(pid, 'SIGKILL')
    const promoted = await onCluster('promote')
    expect(promoted.exitCode, promoted.stderr).toBe(0)
    const { new_primary: primary } = promoted.json.result
    expect(await caller.psql(urlOf(primary), 'SELECT pg_is_in_recovery()')).toEqual(['f'])
    expect((await caller.replctl(['sandbox', 'status', '--dir', dir])).exitCode).toBe(9)

    const again = await caller.replctl(['sandbox', 'up', '--json', '--dir', dir])
    expect(again.exitCode, again.stderr).toBe(0)
    expect(again.json).toMatchObject({ changed: true, result: { primary } })
    expect(await caller.psql(urlOf('pg1'), 'SELECT pg_is_in_recovery()')).toEqual(['t'])
    expect(await caller.psql(urlOf('pg1'), 'TABLE orders')).toEqual(['42'])
    expect(readdirSync(join(dir, 'pg1'))).toContain('data.old-1')
    expect((await onCluster('verify')).exitCode).toBe(0)
  })

  it('starts again the primary that led last', async () => {
    const { result } = (await caller.replctl(['sandbox', 'status', '--json', '--dir', dir])).json
    const pid = Number(readFileSync(join(dir, result.primary, 'data/postmaster.pid'), 'utf8').split('\n')[0])
    process.kill(pid, 'SIGKILL')
    const again = await caller.replctl(['sandbox', 'up', '--json', '--dir', dir])
    expect(again.exitCode, again.stderr).toBe(0)
    expect(again.json.result.primary).toBe(result.primary)
    expect(await caller.psql(urlOf(result.primary), 'SELECT count(*) FROM pg_stat_replication')).toEqual([
      '2',
    ])
  })

  it('is gone without a trace after down, also when it is called twice', async () => {
    const segments = segmentsOf(dir)
    expect(segments.length).toBeGreaterThan(3) // one of them of the primary that was killed first
    const first = await caller.replctl(['sandbox', 'down', '--json', '--dir', dir])
    expect(first.exitCode, first.stderr).toBe(0)
    expect(first.json.changed).toBe(true)
    expect(existsSync(dir)).toBe(false)
    await expectNoProcess(dir)
    expect(segments.filter(isThere)).toEqual([])
    const second = await caller.replctl(['sandbox', 'down', '--json', '--dir', dir])
    expect(second.json).toMatchObject({ exit_code: 0, changed: false })
    const status = await caller.replctl(['sandbox', 'status', '--json', '--dir', dir])
    expect(status.json).toMatchObject({ exit_code: 3, problems: [{ code: 'sandbox-unavailable' }] })
  })
})

describe.runIf(isRoot)("another user's sandbox", () => {
  const callersOf = new Map<string, SandboxCaller>()
  const of = (who: string): SandboxCaller => {
    const known = callersOf.get(who)
    if (known !== undefined) return known
    const made = new SandboxCaller(who === 'root' ? undefined : users.add(`sandbox-${who}`))
    callersOf.set(who, made)
    return made
  }
  const start = (who: string, dir: string) =>
    of(who).replctl(['sandbox', 'up', '--standbys', '0', '--json', '--dir', dir])
  const takeAway = (who: string, dir: string) => of(who).replctl(['sandbox', 'down', '--json', '--dir', dir])
  const dirOf = (who: string) => join(of(who).folder, 'sandbox')
  const answers = async (who: string, url: string) =>
    expect(await of(who).psql(url, 'SELECT 1')).toEqual(['1'])

  afterAll(async () => {
    for (const who of callersOf.keys()) await takeAway(who, dirOf(who))
    for (const caller of callersOf.values()) caller.destroy()
  })

  it("root's is not an ordinary user's to take away: refused at once, and it still runs", async () => {
    const up = await start('root', dirOf('root'))
    expect(up.exitCode, up.stderr).toBe(0)
    for (const more of [[], ['--dry-run']]) {
      const down = await of('bob').replctl(['sandbox', 'down', '--json', '--dir', dirOf('root'), ...more])
      expect(down.json).toMatchObject({
        ...{ exit_code: 3, changed: false },
        problems: [{ code: 'sandbox-unavailable', message: expect.stringContaining('another user') }],
      })
    }
    const again = await of('root').replctl(['sandbox', 'up', '--dry-run', '--json', '--dir', dirOf('root')])
    expect([again.exitCode, JSON.stringify(again.json.result.steps)]).toEqual([
      ...[0, expect.not.stringContaining('planned')],
    ])
    await answers('root', up.json.result.nodes[0].url)
    expect((await takeAway('root', dirOf('root'))).exitCode).toBe(0)
  })

  it('is ended by root, instances and all, before its folder goes', async () => {
    const dir = dirOf('alice')
    const up = await start('alice', dir)
    expect(up.exitCode, up.stderr).toBe(0)
    expect(processesNaming(`${dir}/`)).not.toEqual([])
    const down = await takeAway('root', dir)
    expect(down.exitCode, down.stderr).toBe(0)
    expect(down.json.changed).toBe(true)
    await expectNoProcess(dir)
    expect(existsSync(dir)).toBe(false)
  })

  it('that could be ended but not deleted is told as stopped part-way, and the same command finishes it', async () => {
    const dir = dirOf('alice')
    const up = await start('alice', dir)
    expect(up.exitCode, up.stderr).toBe(0)
    // Not alice's to empty.
    mkdirSync(join(dir, 'kept'), { mode: 0o700 })
    writeFileSync(join(dir, 'kept/letter.txt'), 'mine')
    const down = await takeAway('alice', dir)
    expect(down.json).toMatchObject({
      ...{ ok: false, exit_code: 6, changed: true, cluster: 'sandbox' },
      problems: [{ code: 'stop-failed', hint: expect.stringContaining('run the command again') }],
    })
    expect(down.json.result.steps.map((step: { state: string }) => step.state)).toEqual(['applied', 'failed'])
    await expectNoProcess(dir)
    rmSync(join(dir, 'kept'), { recursive: true })
    const again = await takeAway('alice', dir)
    expect(again.json).toMatchObject({ exit_code: 0, changed: true })
    expect(existsSync(dir)).toBe(false)
  })
})

describe('a sandbox that was never finished', () => {
  let caller: SandboxCaller
  let dir: string
  beforeAll(() => {
    caller = new SandboxCaller()
    dir = join(caller.folder, 'sandbox')
  })
  afterAll(async () => {
    await caller?.replctl(['sandbox', 'down', '--dir', dir])
    caller?.destroy()
  })
  const start = ['sandbox', 'up', '--standbys', '1']

  it('is finished by the same command, killed during initdb and during the base backup', async () => {
    await caller.killAt([...start, '--dir', dir], /make the data directory/)
    await caller.killAt([...start, '--dir', dir], /pg2 {2}make the data directory/)
    const up = await caller.replctl([...start, '--json', '--dir', dir])
    expect(up.exitCode, up.stderr).toBe(0)
    const [primary] = up.json.result.nodes
    expect(await caller.psql(primary.url, 'SELECT state FROM pg_stat_replication')).toEqual(['streaming'])
    expect((await caller.replctl(['status', '-c', up.json.result.inventory])).exitCode).toBe(0)
    expect((await caller.replctl(['sandbox', 'down', '--dir', dir])).exitCode).toBe(0)
  })

  it('is taken away by down, with the programs that still run', async () => {
    await caller.killAt([...start, '--dir', dir], /make the data directory/)
    const down = await caller.replctl(['sandbox', 'down', '--dir', dir])
    expect(down.exitCode, down.stderr).toBe(0)
    expect(existsSync(dir)).toBe(false)
    await expectNoProcess(dir)
  })

  it('changes nothing with --dry-run, and lists what the run would do', async () => {
    const planned = await caller.replctl([...start, '--dry-run', '--json', '--dir', dir])
    expect(planned.exitCode, planned.stderr).toBe(0)
    expect(planned.json.changed).toBe(false)
    const titles = planned.json.result.steps.map((step: { title: string }) => step.title)
    expect(titles).toContain('initialise the data directory with initdb')
    expect(titles).toContain('take a base backup from pg1')
    expect(existsSync(dir)).toBe(false)
  })

  it("leaves a folder alone that is not a sandbox's", async () => {
    const foreign = join(caller.folder, 'foreign')
    mkdirSync(foreign)
    writeFileSync(join(foreign, 'letter.txt'), 'mine')
    for (const word of ['up', 'down', 'status']) {
      const refused = await caller.replctl(['sandbox', word, '--json', '--dir', foreign])
      expect(refused.json).toMatchObject({ exit_code: 3, problems: [{ code: 'sandbox-unavailable' }] })
    }
    expect(readdirSync(foreign)).toEqual(['letter.txt'])
  })

  it('refuses a number of standbys that is none', async () => {
    expect((await caller.replctl(['sandbox', 'up', '--standbys', 'two', '--dir', dir])).exitCode).toBe(2)
  })

  it.runIf(isRoot && existsSync('/usr/lib/postgresql'))(
    'says what to type where there is no PostgreSQL',
    async () => {
      const script = 'mount -t tmpfs none /usr/lib/postgresql && exec "$@"'
      const line = [
        process.execPath,
        join(caller.folder, 'replctl/bin/replctl'),
        'sandbox',
        'up',
        '--json',
        '--dir',
        dir,
      ]
      const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: caller.folder }
      const refused = await runProcess('unshare', ['--mount', 'sh', '-c', script, 'sh', ...line], { env })
      const document = JSON.parse(refused.stdout)
      expect(document).toMatchObject({ exit_code: 3, problems: [{ code: 'binaries-missing' }] })
      expect(document.problems[0].hint).toMatch(/install postgresql/)
      expect(existsSync(dir)).toBe(false)
    },
  )
})

/** No instance; and what held the cluster's lock ends a moment after the command that it was held for. */
async function expectNoProcess(dir: string): Promise<void> {
  expect(processesNaming(`${dir}/`).filter((line) => /\bpostgres -D /.test(line))).toEqual([])
  await awaitCondition('no process is left', () => processesNaming(`${dir}/`).length === 0, {
    timeoutMs: 5_000,
  })
}

/** `key id` of the System V segments of the instances in a sandbox: a postmaster that was killed leaves one behind. */
function segmentsOf(dir: string): readonly string[] {
  return readdirSync(dir)
    .filter((name) => /^pg\d$/.test(name))
    .flatMap((name) => readdirSync(join(dir, name)).map((below) => join(dir, name, below, 'postmaster.pid')))
    .filter((file) => existsSync(file))
    .map((file) => readFileSync(file, 'utf8').split('\n')[6]!.trim().replace(/\s+/, ' '))
}

function isThere(segment: string): boolean {
  const rows = readFileSync('/proc/sysvipc/shm', 'utf8').split('\n')
  return rows.some((row) => row.trim().replace(/\s+/g, ' ').startsWith(`${segment} `))
}
