import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type RunAs, shellScript } from '../../src/command.ts'
import { ReplctlError } from '../../src/errors.ts'
import { createLocalTransport } from '../../src/transport/local-transport.ts'
import { createSshTransport } from '../../src/transport/ssh-transport.ts'
import type { Transport } from '../../src/transport/transport.ts'
import { exec, findProgram, isAlive, isRoot, reportMissing, until } from './kit/machine.ts'
import { hasSshd, startSshd, type TestSshd } from './kit/sshd.ts'
import { createTestUsers } from './kit/users.ts'

const canTest = hasSshd && isRoot && findProgram('sudo') !== undefined
if (!canTest) reportMissing('who commands run as (run the tests as root, with openssh-server and sudo)')

describe.skipIf(!canTest)('who a command runs as', () => {
  const users = createTestUsers()
  let sshd: TestSshd

  beforeAll(async () => {
    users.add('os')
    users.add('adm', { sudo: true })
    users.add('pty', { sudo: 'use_pty' })
    users.add('plain')
    users.add('pw')
    // Sudo rights, but only with a password.
    writeFileSync(`/etc/sudoers.d/${users.name('pw')}`, `${users.name('pw')} ALL=(ALL) ALL\n`, {
      mode: 0o440,
    })
    const names = ['os', 'adm', 'pty', 'plain', 'pw'].map(users.name)
    sshd = await startSshd({ users: [...names, 'root'] })
  })
  afterAll(async () => {
    await sshd?.stop()
    users.removeAll()
  })

  const ssh = (login: string, osUser = users.name('os')): Transport =>
    createSshTransport({
      host: '127.0.0.1',
      settings: sshd.settings(login),
      osUser,
      env: {},
      home: '/nonexistent',
    })
  const whoAmI = async (transport: Transport, runAs: RunAs): Promise<string> => {
    const result = await transport.run(shellScript('who', 'echo "$(id -un) $HOME $USER"', [], { runAs }))
    expect(result.stderr).toBe('')
    return result.stdout.trim()
  }

  test.each([
    ['os', 'os-user', 'os'],
    ['os', 'login', 'os'],
    ['adm', 'os-user', 'os'],
    ['adm', 'login', 'adm'],
    ['adm', 'root', 'root'],
    ['pty', 'os-user', 'os'],
    ['pty', 'root', 'root'],
    ['root', 'os-user', 'os'],
    ['root', 'login', 'root'],
    ['root', 'root', 'root'],
  ] as const)('logged in as %s, a command for %s runs as %s', async (login, runAs, expected) => {
    const transport = ssh(login === 'root' ? 'root' : users.name(login))
    const user = expected === 'root' ? 'root' : users.name(expected)
    const home = expected === 'root' ? '/root' : users.home(expected)
    expect(await whoAmI(transport, runAs)).toBe(`${user} ${home} ${user}`)
    expect(transport.socketPeerIsOsUser).toBe(login === 'os')
    await transport.close()
  })

  test('on this machine root becomes the PostgreSQL OS user, and stays root where asked', async () => {
    const transport = createLocalTransport({ osUser: users.name('os'), username: 'root', uid: 0 })
    const os = users.name('os')
    expect(await whoAmI(transport, 'os-user')).toBe(`${os} ${users.home('os')} ${os}`)
    expect(await whoAmI(transport, 'root')).toBe('root /root root')
    expect(transport.socketPeerIsOsUser).toBe(false)
    await transport.close()
  })

  test.each([
    ['plain', 'has no sudo rights'],
    ['pw', 'must give a password'],
  ])('sudo refused to %s, who %s, names the line for sudoers', async (role) => {
    const transport = ssh(users.name(role))
    const user = users.name(role)
    const refusal = { code: 'sudo-refused', hint: expect.stringContaining(`${user} ALL=(ALL) NOPASSWD: ALL`) }
    await expect(whoAmI(transport, 'os-user')).rejects.toMatchObject(refusal)
    await expect(whoAmI(transport, 'root')).rejects.toMatchObject(refusal)
    await expect(transport.start(shellScript('a lock', 'cat'))).rejects.toMatchObject(refusal)
    expect(await whoAmI(transport, 'login')).toContain(user)
    await transport.close()
  })

  test.each(['root', 'adm'])('an OS user that does not exist is named, for login %s', async (login) => {
    const transport = ssh(login === 'root' ? 'root' : users.name(login), 'nobody-has-this')
    await expect(whoAmI(transport, 'os-user')).rejects.toMatchObject({
      code: 'sudo-refused',
      message: expect.stringContaining('nobody-has-this'),
      hint: expect.stringMatching(/create|os_user/i),
    })
    await transport.close()
  })

  test.each(['adm', 'pty', 'root'])('input and output pass unharmed by way of %s', async (login) => {
    const transport = ssh(login === 'root' ? 'root' : users.name(login))
    const stdin = Buffer.from('é\r\n\u0004\u0003\t'.repeat(100_000))
    const both = shellScript('cat', 'cat; echo err >&2; [ ! -t 0 ] && [ ! -t 1 ] && echo pipes', [], {
      stdin,
    })
    const result = await transport.run(both)
    expect(result.stdout === `${stdin.toString()}pipes\n`).toBe(true)
    expect(result.stderr).toBe('err\n')
    await transport.close()
  })

  test.each(['os', 'adm', 'pty', 'root'])('a time limit kills what runs by way of %s', async (login) => {
    const transport = ssh(login === 'root' ? 'root' : users.name(login))
    const script = 'trap "" TERM; sleep 300 & echo $! $$; while :; do sleep 1; done'
    const pids: number[] = []
    // The limit is for the command: a slow login is none of its time.
    await transport.connect()
    const running = await transport.start(shellScript('a test', script), { timeoutMs: 6_000 })
    running.onStdout((text) => pids.push(...text.trim().split(' ').map(Number)))
    const refusal: unknown = await running.finished.catch((error: unknown) => error)
    expect(refusal).toMatchObject({ code: 'timeout' })
    expect(pids).toHaveLength(2)
    try {
      await until('all are gone', 20_000, () => !pids.some(isAlive))
    } catch (error) {
      const processes = exec('ps', ['-eo', 'pid,ppid,pgid,sid,user,stat,wchan,etimes,args', '--forest'])
      const detail = refusal instanceof ReplctlError ? refusal.detail : ''
      throw new Error(`of ${pids.join(' and ')}; ${detail}\n${sshd.log()}\n${processes}`, { cause: error })
    }
    await transport.close()
  })
})
