import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { program, Secret, shellScript } from '../../src/command.ts'
import { ReplctlError } from '../../src/errors.ts'
import { createLocalTransport } from '../../src/transport/local-transport.ts'
import { createRecordingTransport } from '../../src/transport/recording-transport.ts'
import { createSshTransport } from '../../src/transport/ssh-transport.ts'
import type { Transport } from '../../src/transport/transport.ts'
import { awkwardArguments as awkward } from './kit/awkward.ts'
import { isAlive, isRoot, me, reportMissing, until } from './kit/machine.ts'
import { hasSshd, startSshd, type TestSshd } from './kit/sshd.ts'
import { createTestUsers } from './kit/users.ts'

/** A way to reach a host, on which every case below must hold. */
interface Subject {
  readonly name: string
  open(): Transport
}

const users = createTestUsers()
let sshd: TestSshd | undefined
let osUser = me.username

const local = (): Transport =>
  createLocalTransport({ osUser: me.username, username: me.username, uid: me.uid })
const ssh = (user: string): Transport =>
  createSshTransport({
    host: '127.0.0.1',
    settings: sshd!.settings(user),
    osUser,
    env: {},
    home: '/nonexistent',
  })

const subjects: Subject[] = [
  { name: 'local', open: local },
  { name: 'recording', open: () => createRecordingTransport({ inner: local() }) },
]
if (hasSshd) subjects.push({ name: 'ssh as the PostgreSQL OS user', open: () => ssh(osUser) })
if (hasSshd && isRoot) {
  subjects.push({ name: 'ssh as root', open: () => ssh('root') })
  subjects.push({ name: 'ssh as an administrator with sudo', open: () => ssh(users.name('adm')) })
} else reportMissing('login as root and by sudo (run the tests as root, with openssh-server and sudo)')

let scratch: string
let echo: Server

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'conformance-'))
  chmodSync(scratch, 0o777)
  if (isRoot) {
    osUser = users.add('os')
    users.add('adm', { sudo: true })
  }
  const names = isRoot ? [osUser, users.name('adm'), 'root'] : [me.username]
  if (hasSshd) sshd = await startSshd({ users: names })
  echo = createServer((socket) => socket.pipe(socket))
  await new Promise<void>((resolve) => echo.listen(join(scratch, 'echo.sock'), resolve))
  chmodSync(join(scratch, 'echo.sock'), 0o777)
})

afterAll(async () => {
  echo.close()
  await sshd?.stop()
  users.removeAll()
  rmSync(scratch, { recursive: true, force: true })
})

describe.each(subjects)('$name', ({ open }) => {
  let transport: Transport
  beforeAll(async () => {
    transport = open()
    await transport.connect()
  })
  afterAll(() => transport.close())

  const sh = (script: string, args: readonly string[] = [], options = {}) =>
    shellScript('a test', script, args, options)
  const scratchFile = (): string => join(scratch, Math.random().toString(36).slice(2))

  test.each([0, 1, 2, 126, 127, 255])('exit status %i is a result, not an error', async (status) => {
    const result = await transport.run(sh('echo out; echo err >&2; exit "$1"', [String(status)]))
    expect(result).toEqual({ status, signal: null, stdout: 'out\n', stderr: 'err\n' })
  })

  test('a command that is not there is status 127', async () => {
    const { status, stderr } = await transport.run(program('/nonexistent/pg_ctl'))
    expect(status).toBe(127)
    expect(stderr).toMatch(/not found/)
  })

  test('a script with a syntax error is a result', async () => {
    const { status, stdout } = await transport.run(sh('if then'))
    expect(status).toBe(2)
    expect(stdout).toBe('')
  })

  test('a command that dies by a signal says which, or has its status as shells give it', async () => {
    const { status, signal } = await transport.run(sh('kill -TERM $$; sleep 5'))
    expect([signal, status]).toEqual(signal === null ? [null, 143] : ['SIGTERM', null])
  })

  test('arguments arrive as they are, whatever characters they hold', async () => {
    const { stdout } = await transport.run(sh('for a; do printf "%s\\0" "$a"; done', awkward))
    expect(stdout.split('\0').slice(0, -1)).toEqual(awkward)
    const direct = await transport.run(program('/usr/bin/printf', ['%s|', 'a b', "c'd", '-x', '$y']))
    expect(direct.stdout).toBe("a b|c'd|-x|$y|")
  })

  test('a script arrives as it is, here-documents and comments included', async () => {
    const script = `# it's a comment with "quotes"\ncat <<'EOF'\n$HOME \\ \`x\`\n!été\nEOF\necho "\${1#a}" | tr b c`
    const { stdout } = await transport.run(sh(script, ['ab']))
    expect(stdout).toBe('$HOME \\ `x`\n!été\nc\n')
  })

  test('a script too long for a command line runs all the same, and its input is its own', async () => {
    const script = `cat; : '${'x'.repeat(150_000)}'; echo "$1"`
    const { stdout } = await transport.run(sh(script, ['end'], { stdin: 'input\n' }))
    expect(stdout).toBe('input\nend\n')
    const { stdout: empty } = await transport.run(sh(script, ['end']))
    expect(empty).toBe('end\n')
  })

  test('the environment holds HOME, USER, LOGNAME, PATH, LC_ALL and nothing else', async () => {
    const { stdout } = await transport.run(sh('env; echo "$HOME" "$(pwd)"; eval echo "~$(id -un)"'))
    const lines = stdout.trim().split('\n')
    const [home, pwd] = lines.at(-2)!.split(' ')
    const names = lines.slice(0, -2).map((line) => line.split('=')[0])
    expect(names.filter((name) => !/^(PWD|_|SHLVL)$/.test(name!)).sort()).toEqual(
      ['HOME', 'LC_ALL', 'LOGNAME', 'PATH', 'USER'].sort(),
    )
    expect(home).toBe(lines.at(-1))
    expect(pwd).toBe(home)
  })

  test.each([
    ['text', 'line 1\nélan\n'],
    ['bytes', Buffer.from('line 1\nélan\n')],
    ['a secret', new Secret('line 1\nélan\n')],
    ['nothing in it', ''],
  ])('standard input may be %s', async (_name, stdin) => {
    const { stdout } = await transport.run(sh('cat; echo end', [], { stdin }))
    expect(stdout).toBe(stdin === '' ? 'end\n' : 'line 1\nélan\nend\n')
  })

  test('without standard input a command sees its end at once', async () => {
    const { stdout } = await transport.run(sh('cat; echo end'), { timeoutMs: 10_000 })
    expect(stdout).toBe('end\n')
  })

  test('a command may leave its input unread', async () => {
    const stdin = 'x'.repeat(3_000_000)
    const { status } = await transport.run(sh('exit 7', [], { stdin }), { timeoutMs: 20_000 })
    expect(status).toBe(7)
  })

  test('5 MB go in and come out unharmed, in characters of several bytes', async () => {
    const stdin = '€uro ŁÓDŹ 𐀀\n'.repeat(300_000)
    const { stdout, stderr } = await transport.run(
      sh('tee "$1"; cat "$1" >&2; rm "$1"', [scratchFile()], { stdin }),
    )
    expect(stdout === stdin).toBe(true)
    expect(stderr === stdin).toBe(true)
  })

  test('more than 64 MiB of output is an error, not the end of our memory', async () => {
    const error = await transport.run(sh('yes 0123456789 | head -c 80000000')).catch((e: unknown) => e)
    expect(error).toMatchObject({ code: 'remote-command-failed' })
  })

  test('a time limit kills the command and what it started, and names it', async () => {
    const file = scratchFile()
    const script = 'sleep 300 & echo $! $$ > "$1.new"; mv "$1.new" "$1"; wait; sleep 300'
    const startedAt = performance.now()
    const error = await transport.run(sh(script, [file]), { timeoutMs: 3_000 }).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(ReplctlError)
    expect(error).toMatchObject({ code: 'timeout', message: expect.stringContaining('a test') })
    expect((error as ReplctlError).detail).not.toMatch(/still/)
    expect(performance.now() - startedAt).toBeLessThan(30_000)
    const pids = readFileSync(file, 'utf8').trim().split(' ').map(Number)
    expect(pids).toHaveLength(2)
    await until('both are gone', 20_000, () => !pids.some(isAlive))
  })

  test('a command that ignores SIGTERM is killed for good', async () => {
    const file = scratchFile()
    const script = 'trap "" TERM; echo $$ > "$1"; while :; do sleep 1; done'
    await expect(transport.run(sh(script, [file]), { timeoutMs: 3_000 })).rejects.toMatchObject({
      code: 'timeout',
    })
    await until('it is gone', 20_000, () => !isAlive(Number(readFileSync(file, 'utf8'))))
  })

  test('an abort signal kills the command', async () => {
    const file = scratchFile()
    const aborter = new AbortController()
    const running = transport.run(sh('echo $$ > "$1.new"; mv "$1.new" "$1"; sleep 300', [file]), {
      signal: aborter.signal,
    })
    running.catch(() => {})
    await until('it runs', 20_000, () => existsSync(file))
    aborter.abort()
    await expect(running).rejects.toMatchObject({ code: 'interrupted' })
    await until('it is gone', 20_000, () => !isAlive(Number(readFileSync(file, 'utf8'))))
    const late = transport.run(sh('touch "$1"', [`${file}.late`]), { signal: aborter.signal })
    await expect(late).rejects.toMatchObject({ code: 'interrupted' })
    expect(existsSync(`${file}.late`)).toBe(false)
  })

  test('twenty commands at once each get their own output', async () => {
    const numbers = Array.from({ length: 20 }, (_, index) => String(index))
    const results = await Promise.all(numbers.map((n) => transport.run(sh('sleep 0.1; echo "$1"', [n]))))
    expect(results.map(({ stdout }) => stdout.trim())).toEqual(numbers)
  })

  test('a daemon left behind that holds the pipes open does not hold us', async () => {
    const startedAt = performance.now()
    const { stdout, status } = await transport.run(sh('sleep 300 & echo $!; exit 3'))
    expect(status).toBe(3)
    expect(performance.now() - startedAt).toBeLessThan(100_000)
    await transport.run(sh('kill "$1"', [stdout.trim()]))
  })

  test('a long-lived command reads, prints, and ends when its input ends', async () => {
    const running = await transport.start(sh('while read -r l; do echo "<$l>"; echo "$l" >&2; done; exit 4'))
    const seen = { out: '', err: '' }
    running.onStdout((text) => {
      seen.out += text
    })
    running.onStderr((text) => {
      seen.err += text
    })
    await running.write('one\n')
    await until('the first answer', 20_000, () => seen.out === '<one>\n')
    await running.write('élan\n')
    running.endInput()
    expect(await running.finished).toEqual({ status: 4, signal: null })
    expect(seen).toEqual({ out: '<one>\n<élan>\n', err: 'one\nélan\n' })
    await expect(running.write('late\n')).rejects.toMatchObject({ code: 'remote-command-failed' })
  })

  test('what a long-lived command prints before anyone listens is kept', async () => {
    const running = await transport.start(sh('echo early; cat', [], { stdin: 'first\n' }))
    await new Promise((resolve) => setTimeout(resolve, 200))
    let seen = ''
    running.onStdout((text) => {
      seen += text
    })
    await until('all of it', 20_000, () => seen === 'early\nfirst\n')
    running.endInput()
    await running.finished
  })

  test('a long-lived command can be killed', async () => {
    const running = await transport.start(sh('trap "exit 9" TERM; echo $$; while :; do sleep 0.1; done'))
    let pid = ''
    running.onStdout((text) => {
      pid += text
    })
    await until('it runs', 20_000, () => pid.endsWith('\n'))
    running.kill()
    expect(await running.finished).toEqual({ status: 9, signal: null })
    expect(isAlive(Number(pid))).toBe(false)
  })

  test('a unix socket carries bytes both ways and looks like a socket about to connect', async () => {
    const socket = (await transport.openUnixSocket(join(scratch, 'echo.sock'))) as import('node:net').Socket
    socket.setNoDelay(true)
    const connected = new Promise((resolve) => socket.once('connect', resolve))
    socket.connect(5432, 'ignored')
    await connected
    socket.setKeepAlive(true, 1)
    socket.unref()
    socket.ref()
    const size = 3_000_000
    let received = 0
    socket.on('data', (chunk) => {
      received += chunk.length
    })
    const closed = new Promise((resolve) => socket.once('close', resolve))
    const half = Buffer.alloc(size / 2, 'é')
    socket.write(half)
    socket.write(half)
    await until('the echo', 10_000, () => received === size)
    socket.end()
    await closed
  })

  test('a unix socket that is not there is refused', async () => {
    await expect(transport.openUnixSocket(join(scratch, 'none.sock'))).rejects.toMatchObject({
      code: 'not-answering',
      detail: 'There is no such socket.',
    })
  })

  test('after closing, what runs ends, and what comes later is refused', async () => {
    const other = open()
    const file = scratchFile()
    const running = await other.start(sh('read -r l; touch "$1"', [file]))
    const pending = other.run(sh('sleep 5'))
    pending.catch(() => {})
    await new Promise((resolve) => setTimeout(resolve, 300))
    await other.close()
    await expect(pending).rejects.toMatchObject({ code: 'connection-lost' })
    await expect(running.finished).rejects.toMatchObject({ code: 'connection-lost' })
    await expect(running.write('x\n')).rejects.toMatchObject({ code: 'connection-lost' })
    await expect(other.run(sh('true'))).rejects.toMatchObject({ code: 'connection-lost' })
    await expect(other.start(sh('true'))).rejects.toMatchObject({ code: 'connection-lost' })
    await until('it saw the end of its input', 20_000, () => existsSync(file))
  })
})
