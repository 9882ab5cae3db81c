import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { shellScript } from '../../src/command.ts'
import type { SshSettings } from '../../src/config/inventory.ts'
import { createSshTransport } from '../../src/transport/ssh-transport.ts'
import type { Transport } from '../../src/transport/transport.ts'
import { startClient } from './kit/client-process.ts'
import { exec, freePort, isAlive, isRoot, me, until } from './kit/machine.ts'
import { hasSshd, startSshd, type TestSshd, type TestSshdOptions } from './kit/sshd.ts'
import { createTestUsers } from './kit/users.ts'

describe.skipIf(!hasSshd)('the link', () => {
  const users = createTestUsers()
  let user = me.username
  let sshd: TestSshd
  const others: TestSshd[] = []

  beforeAll(async () => {
    if (isRoot) {
      user = users.add('os')
      users.add('adm', { sudo: true })
      users.add('pty', { sudo: 'use_pty' })
    }
    const names = isRoot ? [user, users.name('adm'), users.name('pty'), 'root'] : [user]
    sshd = await startSshd({ users: names, hostKeys: ['ed25519'] })
  })
  afterEach(async () => {
    for (const one of others.splice(0)) await one.stop()
  })
  afterAll(async () => {
    await sshd?.stop()
    users.removeAll()
  })

  const open = (to: TestSshd, settings: Partial<SshSettings> = {}, host = '127.0.0.1'): Transport =>
    createSshTransport({
      host,
      settings: to.settings(user, settings),
      osUser: user,
      env: {},
      home: '/nonexistent',
    })
  const sh = (script: string, args: readonly string[] = []) => shellScript('a test', script, args)
  const other = async (options: TestSshdOptions): Promise<TestSshd> => {
    const one = await startSshd({ users: [user], hostKeys: ['ed25519'], ...options })
    others.push(one)
    return one
  }

  test('lost under a command: its outcome is unknown, and nothing works afterwards', async () => {
    const broken = await other({})
    const transport = open(broken)
    const running = transport.run(sh('sleep 20; echo done'))
    const lock = await transport.start(sh('cat'))
    const rejection = expect(running).rejects.toMatchObject({
      code: 'connection-lost',
      message: 'connection to 127.0.0.1 lost',
    })
    const startedAt = performance.now()
    broken.signalSessions('SIGKILL')
    await rejection
    expect(performance.now() - startedAt).toBeLessThan(10_000)
    await expect(lock.finished).rejects.toMatchObject({ code: 'connection-lost' })
    await expect(lock.write('x\n')).rejects.toMatchObject({ code: 'connection-lost' })
    await expect(transport.run(sh('true'))).rejects.toMatchObject({ code: 'connection-lost' })
    await expect(transport.connect()).rejects.toMatchObject({ code: 'connection-lost' })
    await expect(transport.openUnixSocket('/x')).rejects.toMatchObject({ code: 'connection-lost' })
    await transport.close()
  })

  test('lost under a forwarded socket is an error on it', async () => {
    const broken = await other({})
    const transport = open(broken)
    const path = `/tmp/.conformance-${process.pid}.sock`
    const server = createServer(() => {}).listen(path)
    exec('chmod', ['777', path])
    const socket = await transport.openUnixSocket(path)
    const failed = new Promise((resolve) => socket.once('error', resolve))
    const closed = new Promise((resolve) => socket.once('close', resolve))
    broken.signalSessions('SIGKILL')
    expect(await failed).toMatchObject({ code: 'ECONNRESET' })
    await closed
    server.close()
    await transport.close()
  })

  test('dead without a word is noticed within 20 s', async () => {
    const broken = await other({})
    const transport = open(broken)
    // Frozen in the middle of its login it would be a host that cannot be connected to.
    await transport.connect()
    const running = await transport.start(sh('echo in; sleep 60'))
    const rejection = expect(running.finished).rejects.toMatchObject({ code: 'connection-lost' })
    broken.signalSessions('SIGSTOP')
    const startedAt = performance.now()
    await rejection
    expect(performance.now() - startedAt).toBeLessThan(20_000)
    await transport.close()
  }, 30_000)

  test('idle for long stays alive', async () => {
    const transport = open(sshd)
    await transport.connect()
    await new Promise((resolve) => setTimeout(resolve, 16_000))
    expect((await transport.run(sh('echo in'))).stdout).toBe('in\n')
    await transport.close()
  }, 30_000)

  const logins = isRoot ? ['os', 'adm', 'pty', 'root', 'local'] : ['os', 'local']
  test.each(logins)(
    'a client killed with SIGKILL: its long-lived command, by way of %s, sees the end of input at once',
    async (login) => {
      const released = join('/tmp', `.conformance-released-${process.pid}`)
      exec('rm', ['-f', released])
      const loginUser = { os: user, root: 'root' }[login] ?? users.name(login)
      const options =
        login === 'local'
          ? { username: me.username, uid: me.uid, osUser: user }
          : { host: '127.0.0.1', settings: sshd.settings(loginUser), osUser: user, env: {}, home: '/x' }
      const client = await startClient(
        sshd.folder,
        `import { shellScript } from './command.ts'
       import { createLocalTransport } from './transport/local-transport.ts'
       import { createSshTransport } from './transport/ssh-transport.ts'
       const hold = async () => {
         const transport = ${login === 'local' ? 'createLocalTransport' : 'createSshTransport'}(${JSON.stringify(options)})
         const lock = await transport.start(shellScript('hold', 'echo held; while read -r l; do echo "$l"; done; touch "$1"', ['${released}']))
         lock.onStdout((text) => process.stdout.write(text))
         await lock.write('heartbeat\\n')
       }
       hold().catch((error) => { console.error(error); process.exit(1) })`,
      )
      await until(
        `it holds the lock: ${client.output()}`,
        10_000,
        () => client.output() === 'held\nheartbeat\n',
      )
      expect(existsSync(released)).toBe(false)
      client.child.kill('SIGKILL')
      await until('the lock is released', 20_000, () => existsSync(released))
      exec('rm', ['-f', released])
    },
  )

  test('a client that closes ends by itself', async () => {
    const settings = JSON.stringify(sshd.settings(user))
    const client = await startClient(
      sshd.folder,
      `import { shellScript } from './command.ts'
       import { createSshTransport } from './transport/ssh-transport.ts'
       const work = async () => {
         const transport = createSshTransport({ host: '127.0.0.1', settings: ${settings}, osUser: '${user}', env: {}, home: '/x' })
         await transport.start(shellScript('hold', 'cat'))
         await transport.run(shellScript('slow', 'sleep 30'), { timeoutMs: 300 }).catch(() => {})
         await transport.close()
         console.log('closed')
       }
       work().catch((error) => { console.error(error); process.exit(1) })`,
    )
    const exited = new Promise((resolve) => client.child.once('exit', resolve))
    await until(`closed: ${client.output()}`, 10_000, () => client.output() === 'closed\n')
    const startedAt = performance.now()
    expect(await exited).toBe(0)
    expect(performance.now() - startedAt).toBeLessThan(10_000)
  })

  test('MaxSessions 4 is enough for twenty commands, a lock and a time limit', async () => {
    const narrow = await other({ config: ['MaxSessions 4'] })
    const transport = open(narrow)
    const lock = await transport.start(sh('cat'))
    const numbers = Array.from({ length: 20 }, (_, index) => String(index))
    const results = await Promise.all(numbers.map((n) => transport.run(sh('sleep 0.05; echo "$1"', [n]))))
    expect(results.map(({ stdout }) => stdout.trim())).toEqual(numbers)
    await expect(transport.run(sh('sleep 30'), { timeoutMs: 300 })).rejects.toMatchObject({ code: 'timeout' })
    lock.endInput()
    expect(await lock.finished).toMatchObject({ status: 0 })
    await transport.close()
  })

  test('MaxSessions 1 and a lock: a second command is refused in words, not left waiting', async () => {
    const narrow = await other({ config: ['MaxSessions 1'] })
    const transport = open(narrow)
    expect((await transport.run(sh('echo in'))).stdout).toBe('in\n')
    const lock = await transport.start(sh('cat'))
    await expect(transport.run(sh('true'))).rejects.toMatchObject({
      hint: expect.stringMatching(/MaxSessions/),
    })
    lock.endInput()
    await lock.finished
    expect((await transport.run(sh('echo in'))).stdout).toBe('in\n')
    await transport.close()
  })

  test('many long-lived commands do not starve the short ones', async () => {
    const transport = open(sshd)
    const locks = await Promise.all(Array.from({ length: 8 }, () => transport.start(sh('cat'))))
    expect((await transport.run(sh('echo in'))).stdout).toBe('in\n')
    for (const lock of locks) lock.endInput()
    await Promise.all(locks.map(({ finished }) => finished))
    await transport.close()
  })

  test('an aborted wait for a free session does not run the command', async () => {
    const transport = open(sshd)
    await transport.connect()
    const file = join('/tmp', `.conformance-waited-${process.pid}`)
    const busy = Promise.all(Array.from({ length: 8 }, () => transport.run(sh('sleep 1'))))
    const aborter = new AbortController()
    const waiting = transport.run(sh('touch "$1"', [file]), { signal: aborter.signal })
    setTimeout(() => aborter.abort(), 100)
    await expect(waiting).rejects.toMatchObject({ code: 'interrupted' })
    await busy
    await transport.run(sh('true'))
    expect(existsSync(file)).toBe(false)
    await transport.close()
  })

  test('a login that is dropped at once, as by MaxStartups, is tried again', async () => {
    let connections = 0
    const door = createServer((socket) => {
      connections += 1
      socket.on('error', () => {})
      if (connections <= 2) return socket.destroy()
      const inside = createConnection(sshd.port, '127.0.0.1').on('error', () => socket.destroy())
      socket.pipe(inside).pipe(socket)
    })
    const port = await freePort()
    await new Promise<void>((resolve) => door.listen(port, '127.0.0.1', resolve))
    const knownHosts = join(sshd.folder, 'known_hosts_of_the_door')
    writeFileSync(knownHosts, sshd.knownHostLines().replace(`:${sshd.port} `, ':* '))
    const transport = open(sshd, { port, knownHosts, connectTimeoutMs: 10_000 })
    expect((await transport.run(sh('echo in'))).stdout).toBe('in\n')
    await transport.close()
    expect(connections).toBe(3)
    door.close()
  })

  test('a forbidden forwarding says what forbids it', async () => {
    const strict = await other({ config: ['AllowStreamLocalForwarding no'] })
    const transport = open(strict)
    const path = `/tmp/.conformance-forbidden-${process.pid}.sock`
    const server = createServer(() => {}).listen(path)
    exec('chmod', ['777', path])
    await expect(transport.openUnixSocket(path)).rejects.toMatchObject({
      code: 'not-answering',
      detail: expect.stringContaining('AllowStreamLocalForwarding'),
    })
    server.close()
    await transport.close()
  })

  describe('that cannot be made', () => {
    test('because nothing listens', async () => {
      const transport = open(sshd, { port: await freePort() })
      await expect(transport.connect()).rejects.toMatchObject({
        code: 'host-unreachable',
        detail: expect.stringContaining('connection refused'),
      })
      await expect(transport.run(sh('true'))).rejects.toMatchObject({ code: 'host-unreachable' })
      await transport.close()
    })

    test('because the name is not found', async () => {
      await expect(open(sshd, {}, 'no-such-host.invalid').connect()).rejects.toMatchObject({
        code: 'host-unreachable',
        detail: expect.stringMatching(/name/),
      })
    })

    test('because the host accepts and says nothing: the time limit covers the whole way', async () => {
      const server = createServer(() => {})
      const port = await freePort()
      await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
      const startedAt = performance.now()
      await expect(open(sshd, { port, connectTimeoutMs: 700 }).connect()).rejects.toMatchObject({
        code: 'host-unreachable',
        detail: expect.stringContaining('timed out after 0.7 s while logging in'),
      })
      expect(performance.now() - startedAt).toBeLessThan(6_000)
      server.close()
    })

    test('because the address does not answer', async () => {
      const startedAt = performance.now()
      // An address of documentation: packets to it are lost, or there is no route.
      await expect(open(sshd, { connectTimeoutMs: 700 }, '192.0.2.1').connect()).rejects.toMatchObject({
        code: 'host-unreachable',
        detail: expect.stringMatching(/timed out after 0.7 s while connecting|no route|closed|refused/),
      })
      expect(performance.now() - startedAt).toBeLessThan(6_000)
    })

    test('because something else than sshd answers', async () => {
      const server = createServer((socket) => socket.end('220 smtp.example.org\r\n'))
      const port = await freePort()
      await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
      await expect(open(sshd, { port }).connect()).rejects.toMatchObject({ code: 'host-unreachable' })
      server.close()
    })

    test('because no algorithm is common', async () => {
      const modern = await other({ config: ['KexAlgorithms sntrup761x25519-sha512@openssh.com'] })
      await expect(open(modern).connect()).rejects.toMatchObject({
        code: 'host-unreachable',
        hint: expect.stringContaining('post-quantum'),
      })
    })
  })

  test('the first result is there within seconds', async () => {
    const times: number[] = []
    for (let round = 0; round < 5; round++) {
      const startedAt = performance.now()
      const transport = open(sshd)
      await transport.run(sh('true'))
      times.push(performance.now() - startedAt)
      await transport.close()
    }
    console.info(`first results after ${times.map(Math.round).join(', ')} ms`)
    expect(Math.min(...times)).toBeLessThan(5_000)
  })

  test('nothing is left on the host after closing', async () => {
    const transport = open(sshd)
    const lock = await transport.start(sh('echo $$; cat'))
    let pid = ''
    lock.onStdout((text) => {
      pid += text
    })
    await until('it runs', 20_000, () => pid.endsWith('\n'))
    await transport.close()
    await until('it is gone', 20_000, () => !isAlive(Number(pid)))
    await until('the session is gone', 20_000, () => sshd.sessions().length === 0)
    expect(readFileSync(join(sshd.folder, 'log'), 'utf8')).not.toMatch(/error:|fatal:/)
  })
})
