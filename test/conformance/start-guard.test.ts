import { spawn } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { buildConninfo } from '../../src/postgres/conninfo.ts'
import { renderGuardDropIn, renderGuardedServer, renderStartGuard } from '../../src/postgres/start-guard.ts'
import { findProgram, reportMissing } from './kit/machine.ts'

const shells = ['dash', 'bash', 'busybox'].filter((shell) => findProgram(shell) !== undefined)
for (const shell of ['dash', 'bash', 'busybox'])
  if (!shells.includes(shell)) reportMissing(`start guard under ${shell} (install it)`)
const template = (name: string) =>
  readFileSync(new URL(`../../templates/guard/${name}.sh`, import.meta.url), 'utf8')
const applets = [
  'awk',
  'cat',
  'cut',
  'date',
  'env',
  'grep',
  'mv',
  'printf',
  'rm',
  'sed',
  'sleep',
  'sort',
  'sync',
  'tr',
]

const control = (timeline: number, reached = 0) => `Database system identifier:           7411
Database cluster state:               in production
Latest checkpoint's TimeLineID:       ${timeline}
Latest checkpoint's PrevTimeLineID:   ${timeline}
Min recovery ending loc's timeline:   ${reached}
`
/** What the fake psql does for one host: an sh script. */
const answers = {
  standby: (timeline: number, history = '') => speak(timeline, 'on', history),
  primary: (timeline: number, history = '') => speak(timeline, 'off', history),
  /** Replays an old timeline and has the history of a newer one. */
  delayed: (timeline: number, historyOf: number, history: string) =>
    speak(timeline, 'on', history, historyOf),
  stranger: 'printf "7999|9|0/1|\\noff\\n"',
  refused: 'echo "psql: error: connection to server failed: Connection refused" >&2; exit 2',
  booting: 'echo "psql: error: FATAL:  the database system is starting up" >&2; exit 2',
  noise: 'printf "Welcome|to|the|machine\\n"',
  hangs: 'exec sleep 60',
}
/** As psql does: an answer for each `-c`, an error for a timeline without a history. */
const speak = (timeline: number, readOnly: string, history: string, historyOf = timeline) => `
case "$*" in *IDENTIFY_SYSTEM*) printf '7411|${timeline}|0/5000148|\\n${readOnly}\\n' ;; esac
case "$*" in *'TIMELINE_HISTORY ${historyOf}') printf '%08X.history|${history}\\n' ${historyOf} ;;
  *TIMELINE_HISTORY*) echo 'ERROR:  could not open file "pg_wal/00000009.history": No such file or directory'; exit 1 ;; esac`
const fromOne = '1\\t0/3000000\\tno recovery target specified\\n'

describe.each(shells)('the start guard under %s', (shell) => {
  let root: string
  let data: string
  let state: string

  beforeAll(() => {
    root = join(mkdtempSync(join(tmpdir(), 'replctl-guard-')), `o'neil "$HOME" \\d`)
    data = join(root, 'data')
    state = join(root, 'state')
    mkdirSync(join(root, 'applets'), { recursive: true })
    for (const applet of applets) symlinkSync('/bin/busybox', join(root, 'applets', applet))
  })
  afterAll(() => rmSync(join(root, '..'), { recursive: true, force: true }))
  beforeEach(() => {
    for (const name of ['data', 'state', 'bin', 'answers']) {
      rmSync(join(root, name), { recursive: true, force: true })
      mkdirSync(join(root, name))
    }
    mkdirSync(join(data, 'pg_wal'))
    rmSync(join(root, 'asked'), { force: true })
    writeFileSync(join(data, 'PG_VERSION'), '15\n')
    writeFileSync(join(root, 'control'), control(1))
    const fake = (name: string, script: string) => {
      const text = `#!/bin/sh\nroot=${quote(root)}\n${script}\n`
      writeFileSync(join(root, 'bin', name), text)
      chmodSync(join(root, 'bin', name), 0o755)
    }
    fake('pg_controldata', '[ "$1" = "$root/data" ] && cat "$root/control"')
    fake(
      'psql',
      `
{ printf '%s\\n' "$*"; env | grep -E '^(PG|LC_|HOME)'; } >>"$root/asked"
for word; do case $word in host=*) host=\${word#host=}; host=\${host%% *} ;; esac; done
. "$root/answers/$host"`,
    )
    fake('postgres', 'echo "server $$ $*"')
  })
  const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`

  const values = () => ({
    ...{ cluster: 'shop', node: 'pg1', stateDirectory: state, dataDirectory: data },
    binDirectory: join(root, 'bin'),
  })
  const install = (name: string, text: string) => {
    const own = shell === 'busybox' ? '/bin/busybox sh' : `/bin/${shell}`
    const path = shell === 'busybox' ? `PATH=${quote(join(root, 'applets'))}:\${PATH:-` : 'PATH=${PATH:-'
    const script = text.replace('#!/bin/sh', `#!${own}`).replace('PATH=${PATH:-', path)
    writeFileSync(
      join(state, name),
      script.replace(/limit=\d+/g, 'limit=0').replace(/patience=\d+/g, 'patience=0'),
    )
    chmodSync(join(state, name), 0o755)
  }
  const run = async (program: string, args: readonly string[] = [], env: Record<string, string> = {}) => {
    const child = spawn(program, args, {
      env: { PATH: '/usr/bin:/bin', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [out, err] = ['', '']
    child.stdout.on('data', (chunk) => (out += chunk))
    child.stderr.on('data', (chunk) => (err += chunk))
    const status = await new Promise<number | null>((resolve) => child.once('close', resolve))
    return { status, out, err, pid: child.pid }
  }
  /** Renders the guard for these other nodes and runs it. */
  const guard = async (others: Readonly<Record<string, string>>, args: readonly string[] = [], env = {}) => {
    for (const [host, script] of Object.entries(others)) writeFileSync(join(root, 'answers', host), script)
    const peers = Object.keys(others).map((name) => ({
      name,
      conninfo: buildConninfo({
        host: name,
        port: '5432',
        user: `o'neil`,
        passfile: `${state}/pgpass`,
        replication: 'true',
      }),
    }))
    install('start-guard', renderStartGuard(template('start-guard'), { ...values(), others: peers }))
    return await run(join(state, 'start-guard'), args, env)
  }
  const isFenced = () => existsSync(join(state, 'fenced.json')) || existsSync(join(data, 'standby.signal'))

  test('a standby starts at once, nobody is asked; a leftover trigger file of a fenced one is gone', async () => {
    writeFileSync(join(data, 'standby.signal'), '')
    writeFileSync(join(state, 'promote'), '')
    expect(await guard({ pg2: answers.primary(2, fromOne) })).toMatchObject({ status: 0, err: '' })
    expect(existsSync(join(root, 'asked'))).toBe(false)
    expect(existsSync(join(state, 'promote'))).toBe(true)
    writeFileSync(join(state, 'fenced.json'), '{}')
    expect(await guard({ pg2: answers.primary(2, fromOne) })).toMatchObject({ status: 0 })
    expect(existsSync(join(state, 'promote'))).toBe(false)
  })

  test('without other nodes, or without a data directory, there is nothing to ask', async () => {
    expect(await guard({})).toMatchObject({ status: 0, err: '' })
    rmSync(join(data, 'PG_VERSION'))
    expect(await guard({ pg2: answers.refused })).toMatchObject({ status: 0, err: '' })
  })

  test('where all others are standbys of its timeline, or of an older one, it leads', async () => {
    writeFileSync(join(root, 'control'), control(2))
    expect(await guard({ pg2: answers.standby(2), pg3: answers.standby(1) })).toMatchObject({
      status: 0,
      err: '',
    })
    expect(isFenced()).toBe(false)
  })

  test('another primary on a timeline that left its own: it is fenced, durably and as replctl reads it', async () => {
    writeFileSync(join(state, 'promote'), '')
    const refused = await guard({ pg2: answers.standby(2, fromOne), pg3: answers.primary(2, fromOne) })
    expect(refused.status).toBe(1)
    expect(refused.err).toContain('pg3 is a primary on timeline 2 of cluster shop')
    expect(refused.err).toContain('left timeline 1 of this node at 0/3000000')
    expect(refused.err).toContain('replctl rejoin pg1')
    expect(JSON.parse(readFileSync(join(state, 'fenced.json'), 'utf8'))).toEqual({
      ...{ newPrimary: 'pg3', timeline: 1, wasRunning: false },
      at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
    })
    expect(readFileSync(join(data, 'standby.signal'), 'utf8')).toBe('')
    expect(existsSync(join(state, 'promote'))).toBe(false)
    // From now on it may start: as a standby.
    expect(await guard({ pg2: answers.refused })).toMatchObject({ status: 0 })
  })

  test('a standby that follows another primary bears witness as well', async () => {
    const history = `${fromOne}2\\t0/4000000\\tno recovery target specified\\n`
    const refused = await guard({ pg2: answers.refused, pg3: answers.standby(3, history) })
    expect(refused.status).toBe(1)
    expect(refused.err).toContain('pg3 is a standby on timeline 3')
    expect(isFenced()).toBe(true)
  })

  test('a standby that is behind by its delay, and has the history of another timeline, bears witness as well', async () => {
    const refused = await guard({ pg2: answers.refused, pg3: answers.delayed(1, 2, fromOne) })
    expect(refused.status).toBe(1)
    expect(refused.err).toContain('left timeline 1 of this node at 0/3000000')
    expect(isFenced()).toBe(true)
  })

  test('PostgreSQL 11: a standby is told by recovery.conf, and fenced by it', async () => {
    writeFileSync(join(data, 'PG_VERSION'), '11\n')
    writeFileSync(join(data, 'recovery.conf'), "restore_command = 'x'\n")
    expect(await guard({ pg2: answers.primary(2, fromOne) })).toMatchObject({ status: 1 })
    expect(readFileSync(join(data, 'recovery.conf'), 'utf8')).toBe("standby_mode = 'on'\n")
    expect(existsSync(join(data, 'standby.signal'))).toBe(false)
    expect(await guard({ pg2: answers.primary(2, fromOne) })).toMatchObject({ status: 0 })
  })

  test('a primary beside it on the same or an older timeline: it does not start, and is not fenced', async () => {
    writeFileSync(join(root, 'control'), control(2))
    for (const timeline of [1, 2]) {
      const refused = await guard({ pg2: answers.primary(timeline), pg3: answers.standby(2) })
      expect(refused.status).toBe(1)
      expect(refused.err).toContain(`pg2 accepts writes on timeline ${timeline}, this node would on 2`)
    }
    expect(isFenced()).toBe(false)
  })

  test('a higher timeline that does not come from its own fences nobody, and is told', async () => {
    // Both were promoted from timeline 1, at different points.
    writeFileSync(join(root, 'control'), control(2))
    writeFileSync(join(data, 'pg_wal/00000002.history'), '1\t0/3000000\tno recovery target specified\n')
    const other = '1\\t0/2000000\\tx\\n2\\t0/4000000\\tx\\n'
    const refused = await guard({ pg2: answers.standby(3, other) })
    expect(refused.status).toBe(1)
    expect(refused.err).toContain("pg2 is on timeline 3, which does not come from this node's 2")
    expect(isFenced()).toBe(false)
    const same = '1\\t0/3000000\\tx\\n2\\t0/4000000\\tx\\n'
    expect(await guard({ pg2: answers.standby(3, same) })).toMatchObject({ status: 1 })
    expect(isFenced()).toBe(true)
  })

  test('promoted and not yet checkpointed, its newest timeline counts', async () => {
    writeFileSync(join(root, 'control'), control(1, 2))
    expect(await guard({ pg2: answers.standby(2, fromOne) })).toMatchObject({ status: 0 })
  })

  test('nobody who can be asked is no proof: it refuses and says who said what; permission serves one start', async () => {
    const others = { pg2: answers.refused, pg3: answers.booting, pg4: answers.stranger, pg5: answers.noise }
    const refused = await guard(others)
    expect(refused.status).toBe(1)
    for (const words of [
      'Connection refused',
      'starting up',
      'at the address of pg4 is another cluster',
      'pg5: Welcome',
    ])
      expect(refused.err).toContain(words)
    expect(refused.err).toContain('--allow-once')
    expect(await guard({}, ['--allow-once'])).toMatchObject({ status: 0 })
    const allowed = await guard(others)
    expect(allowed.status).toBe(0)
    expect(allowed.err).toContain('as was allowed')
    expect(await guard(others)).toMatchObject({ status: 1 })
    expect(isFenced()).toBe(false)
  })

  test('permission of another boot, or from long ago, or over a node that has taken over, is none', async () => {
    writeFileSync(join(state, 'start-anyway'), 'other-boot 1\n')
    expect(await guard({ pg2: answers.refused })).toMatchObject({ status: 1 })
    const boot = existsSync('/proc/sys/kernel/random/boot_id')
      ? readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
      : '-'
    for (const at of ['99999999999', 'x', '-5']) {
      writeFileSync(join(state, 'start-anyway'), `${boot} ${at}\n`)
      expect(await guard({ pg2: answers.refused })).toMatchObject({ status: 1 })
    }
    await guard({}, ['--allow-once'])
    expect(await guard({ pg2: answers.primary(2, fromOne) })).toMatchObject({ status: 1 })
    expect(isFenced()).toBe(true)
  })

  test('more than half of the cluster is enough after a while, half is not', async () => {
    const enough = await guard({ pg2: answers.standby(1), pg3: answers.refused })
    expect(enough.status).toBe(0)
    expect(enough.err).toContain('starts without the answer of some: pg3')
    const half = { pg2: answers.standby(1), pg3: answers.refused, pg4: answers.refused }
    expect(await guard(half)).toMatchObject({ status: 1 })
  })

  test('one that was made a standby while it waited does not start under replctl’s hands', async () => {
    const meanwhile = `: > ${quote(join(data, 'standby.signal'))}; ${answers.refused}`
    const refused = await guard({ pg2: meanwhile })
    expect(refused.status).toBe(1)
    expect(refused.err).toContain('was made a standby while')
  })

  test('an answer that never comes ends in time', async () => {
    const begun = Date.now()
    expect(await guard({ pg2: answers.hangs, pg3: answers.hangs })).toMatchObject({ status: 1 })
    expect(Date.now() - begun).toBeLessThan(30_000)
  })

  test('nothing of its environment reaches psql, and no password its arguments', async () => {
    const env = {
      PGHOST: 'wrong',
      PGOPTIONS: '-c x=y',
      PGPASSWORD: 'secret',
      LC_ALL: 'de_DE.UTF-8',
      HOME: '/wrong',
    }
    expect(await guard({ pg2: answers.standby(1) }, [], env)).toMatchObject({ status: 0 })
    const asked = readFileSync(join(root, 'asked'), 'utf8')
    expect(asked).not.toMatch(/^PG|wrong|secret|de_DE/m)
    expect(asked).toContain(`-d host=pg2 port=5432 user='o\\'neil' passfile=`)
    expect(asked).toContain('LC_ALL=C')
  })

  test('pg_control that cannot be read is no permission', async () => {
    writeFileSync(join(root, 'control'), 'pg_controldata: fatal: could not open file\n')
    const refused = await guard({ pg2: answers.standby(1) })
    expect(refused.status).toBe(1)
    expect(refused.err).toContain('could not open file')
  })

  test('--check asks once, says what each answered, and changes nothing', async () => {
    writeFileSync(join(state, 'pgpass'), '')
    const checked = await guard({ pg2: answers.primary(2, fromOne), pg3: answers.refused }, ['--check'])
    expect(checked.status).toBe(0)
    expect(checked.out).toMatch(
      /^pg2 is a primary on timeline 2, pg3 does not answer \(psql: error.*refused\)\n$/,
    )
    expect(isFenced()).toBe(false)
    rmSync(join(state, 'pgpass'))
    expect(await guard({ pg2: answers.standby(1) }, ['--check'])).toMatchObject({ status: 3 })
  })

  test('guarded-postgres becomes the server where the guard lets it, and stays out of questions and other instances', async () => {
    install('guarded-postgres', renderGuardedServer(template('guarded-postgres'), values()))
    const server = join(state, 'guarded-postgres')
    const missing = await run(server, ['-D', data])
    expect(missing.status).not.toBe(0)
    expect(missing.err).toContain('cannot run')
    await guard({ pg2: answers.primary(1) })
    expect(await run(server, ['-D', data, '-c', 'port=1'])).toMatchObject({ status: 1, out: '' })
    expect(await run(server, [`-D${data}`])).toMatchObject({ status: 1, out: '' })
    expect(await run(server, [], { PGDATA: data })).toMatchObject({ status: 1, out: '' })
    for (const args of [
      ['-V'],
      ['--version'],
      ['-C', 'data_directory', '-D', data],
      ['--single', '-D', data],
    ]) {
      expect((await run(server, args)).out).toContain(`server `)
    }
    mkdirSync(join(root, 'answers/other'))
    writeFileSync(join(root, 'answers/other/PG_VERSION'), '99\n')
    expect((await run(server, ['-D', join(root, 'answers/other')])).out).toContain('answers/other')
    await guard({ pg2: answers.standby(1) })
    const started = await run(server, ['-D', data, '-c', "a='b c'"])
    expect(started).toMatchObject({ status: 0, out: `server ${started.pid} -D ${data} -c a='b c'\n` })
  })
})

const analyze = findProgram('systemd-analyze')
if (analyze === undefined) reportMissing('the start guard in a systemd unit (install systemd)')

test.skipIf(analyze === undefined)(
  'systemd understands the drop-in that runs the guard before the server',
  async () => {
    const root = mkdtempSync(join(tmpdir(), 'replctl-unit-'))
    try {
      const dropIns = join(root, 'postgresql-15.service.d')
      mkdirSync(dropIns)
      writeFileSync(
        join(root, 'postgresql-15.service'),
        '[Unit]\nDescription=x\n[Service]\nType=notify\nUser=root\nEnvironment=PGDATA=/srv\nExecStart=/bin/true\n',
      )
      const values = { cluster: 'shop', node: 'pg1', dataDirectory: '/srv', binDirectory: '/usr/bin' }
      const text = renderGuardDropIn(
        readFileSync(new URL('../../templates/guard/systemd-drop-in.conf', import.meta.url), 'utf8'),
        { ...values, stateDirectory: `${root}/o'neil %h $x "q"` },
      )
      const verify = async (dropIn: string) => {
        writeFileSync(join(dropIns, 'replctl-shop.conf'), dropIn)
        const child = spawn(analyze!, ['verify', join(root, 'postgresql-15.service')])
        let said = ''
        for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk))
        await new Promise((resolve) => child.once('close', resolve))
        return said
      }
      expect(await verify(text)).toBe('')
      expect(await verify(text.replace(/"$/m, ''))).toContain('replctl-shop.conf')
    } finally {
      rmSync(root, { recursive: true, force: true })
    }
  },
)
