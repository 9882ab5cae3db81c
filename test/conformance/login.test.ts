import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { program } from '../../src/command.ts'
import type { SshSettings } from '../../src/config/inventory.ts'
import { ReplctlError } from '../../src/errors.ts'
import { createSshTransport } from '../../src/transport/ssh-transport.ts'
import { exec, findProgram, isRoot, me, reportMissing, until } from './kit/machine.ts'
import { hasSshd, type KeyType, makeKey, startSshd, type TestSshd } from './kit/sshd.ts'
import { createTestUsers } from './kit/users.ts'

const hasSsh = findProgram('ssh') !== undefined
const hasAgent = findProgram('ssh-agent') !== undefined
if (!hasAgent) reportMissing('logging in by ssh-agent (install openssh-client)')

/** A login of the tests: who, with which settings and environment. */
interface Login {
  readonly settings?: Partial<SshSettings>
  readonly env?: Record<string, string>
  readonly host?: string
  readonly osUser?: string
  readonly home?: string
}

describe.skipIf(!hasSshd)('logging in', () => {
  const users = createTestUsers()
  let sshd: TestSshd
  let jump: TestSshd
  let agent: Agent | undefined
  let user = me.username
  let count = 0

  beforeAll(async () => {
    if (isRoot) user = users.add('os')
    sshd = await startSshd({ users: [user] })
    jump = await startSshd({ users: [user], hostKeys: ['ecdsa'] })
    if (hasAgent) agent = await startAgent(join(sshd.folder, 'agent.sock'))
  })
  afterAll(async () => {
    agent?.stop()
    await sshd?.stop()
    await jump?.stop()
    users.removeAll()
  })

  const newFolder = (): string => {
    const folder = join(sshd.folder, `folder_${++count}`)
    mkdirSync(join(folder, '.ssh'), { recursive: true, mode: 0o700 })
    return folder
  }
  const newKey = (type: KeyType = 'ed25519', passphrase = ''): string => {
    const file = makeKey(join(newFolder(), `id_${type}`), type, passphrase)
    sshd.authorize(user, readFileSync(`${file}.pub`, 'utf8'))
    return file
  }
  const logIn = async ({
    settings,
    env = {},
    host = '127.0.0.1',
    osUser = user,
    home = newFolder(),
  }: Login) => {
    const transport = createSshTransport({
      host,
      settings: sshd.settings(user, { identityFile: undefined, ...settings }),
      osUser,
      env: { PATH: '/usr/bin:/bin', ...env },
      home,
    })
    try {
      const { stdout } = await transport.run(program('id', ['-un'], { runAs: 'login' }))
      return stdout.trim()
    } finally {
      await transport.close()
    }
  }
  const refusalOf = async (login: Login): Promise<ReplctlError> => {
    const error = await logIn(login).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(ReplctlError)
    expect(error).toMatchObject({ code: 'auth-refused', exitCode: 4 })
    return error as ReplctlError
  }

  test.each(['ed25519', 'ecdsa', 'rsa'] as const)('works with an %s key', async (type) => {
    expect(await logIn({ settings: { identityFile: newKey(type) } })).toBe(user)
  })

  test.each(['PEM', 'PKCS8'])('works with an rsa key in %s form', async (form) => {
    const file = newKey('rsa')
    exec('ssh-keygen', ['-q', '-p', '-m', form, '-N', '', '-P', '', '-f', file])
    expect(readFileSync(file, 'utf8')).toMatch(form === 'PEM' ? /BEGIN RSA PRIVATE/ : /BEGIN PRIVATE/)
    expect(await logIn({ settings: { identityFile: file } })).toBe(user)
  })

  test('works with the usual keys in ~/.ssh', async () => {
    const home = newFolder()
    copyFileSync(newKey('ecdsa'), join(home, '.ssh', 'id_ecdsa'))
    expect(await logIn({ home })).toBe(user)
  })

  test.each(['ed25519', 'rsa'] as const)(
    'works with an encrypted %s key and $REPLCTL_SSH_PASSPHRASE',
    async (type) => {
      const settings = { identityFile: newKey(type, 'open sesame') }
      expect(await logIn({ settings, env: { REPLCTL_SSH_PASSPHRASE: 'open sesame' } })).toBe(user)
    },
  )

  test('refuses an encrypted key that nothing opens, and says what would open it', async () => {
    const identityFile = newKey('ed25519', 'open sesame')
    const closed = await refusalOf({ settings: { identityFile } })
    expect(closed.detail).toContain(identityFile)
    expect(closed.detail).toContain('$REPLCTL_SSH_PASSPHRASE')
    const wrong = await refusalOf({
      settings: { identityFile },
      env: { REPLCTL_SSH_PASSPHRASE: 'not this one' },
    })
    expect(wrong.detail).toContain('$REPLCTL_SSH_PASSPHRASE does not open it')
    expect(JSON.stringify([wrong.message, wrong.detail, wrong.hint, wrong.stack])).not.toContain(
      'not this one',
    )
  })

  test('refused names the user, the keys and that no agent was asked', async () => {
    const file = makeKey(join(newFolder(), 'id_foreign'))
    const refusal = await refusalOf({ settings: { identityFile: file } })
    const fingerprint = exec('ssh-keygen', ['-l', '-f', file]).split(' ')[1]!
    expect(refusal.message).toBe(`login as "${user}" on 127.0.0.1 refused`)
    expect(refusal.detail).toBe(`Refused: ${file} (${fingerprint}). No ssh-agent was asked.`)
    const missing = await refusalOf({ settings: { identityFile: '/nonexistent/id' } })
    expect(missing.detail).toContain('/nonexistent/id: no such file')
    const none = await refusalOf({})
    expect(none.detail).toMatch(/^No key was there to try\./)
  })

  test('refused to an unknown user', async () => {
    const refusal = await refusalOf({ settings: { user: 'nobody-has-this', identityFile: sshd.identity } })
    expect(refusal.message).toContain('nobody-has-this')
  })

  describe.skipIf(!hasAgent)('by ssh-agent', () => {
    const add = (file: string, passphrase = ''): void => agent!.add(file, passphrase)

    test('works with a key that only the agent has', async () => {
      add(newKey())
      expect(await logIn({ env: { SSH_AUTH_SOCK: agent!.socket } })).toBe(user)
      agent!.clear()
    })

    test('opens an encrypted key that it holds', async () => {
      const identityFile = newKey('ed25519', 'open sesame')
      add(identityFile, 'open sesame')
      expect(await logIn({ settings: { identityFile }, env: { SSH_AUTH_SOCK: agent!.socket } })).toBe(user)
      agent!.clear()
    })

    test('holds the key of which only the public half is named', async () => {
      const key = newKey()
      add(makeKey(join(newFolder(), 'id_other')))
      add(key)
      const settings = { identityFile: `${key}.pub` }
      expect(await logIn({ settings, env: { SSH_AUTH_SOCK: agent!.socket } })).toBe(user)
      agent!.clear()
      expect((await refusalOf({ settings })).detail).toContain('public half')
    })

    test('works with an rsa key', async () => {
      add(newKey('rsa'))
      expect(await logIn({ env: { SSH_AUTH_SOCK: agent!.socket } })).toBe(user)
      agent!.clear()
    })

    test('offers the named key first: seven other keys do not use up the tries', async () => {
      for (let n = 0; n < 7; n++) add(makeKey(join(newFolder(), 'id_other')))
      const settings = { identityFile: newKey() }
      expect(await logIn({ settings, env: { SSH_AUTH_SOCK: agent!.socket } })).toBe(user)
      add(settings.identityFile)
      expect(await logIn({ settings, env: { SSH_AUTH_SOCK: agent!.socket } })).toBe(user)
      const refusal = await refusalOf({ env: { SSH_AUTH_SOCK: agent!.socket } })
      expect(refusal.detail).toContain('in ssh-agent')
      agent!.clear()
    })

    test('refused names the keys of the agent, and an agent that does not answer', async () => {
      add(makeKey(join(newFolder(), 'id_other')))
      const refusal = await refusalOf({ env: { SSH_AUTH_SOCK: agent!.socket } })
      expect(refusal.detail).toMatch(/Refused: conformance \(SHA256:.*\) in ssh-agent/)
      agent!.clear()
      const empty = await refusalOf({ env: { SSH_AUTH_SOCK: agent!.socket } })
      expect(empty.detail).toContain('holds no keys')
      const dead = await refusalOf({ env: { SSH_AUTH_SOCK: '/nonexistent/agent' } })
      expect(dead.detail).toContain('/nonexistent/agent')
    })
  })

  describe.each(hasSsh ? ['ssh -G', 'our own reading'] : ['our own reading'])(
    'as ssh_config says, by %s',
    (how) => {
      const env = how === 'ssh -G' ? {} : { PATH: '/nonexistent' }
      const plain: Partial<SshSettings> = { user: undefined, port: undefined, knownHosts: undefined }
      const configured = (home: string, text: string): void => {
        writeFileSync(join(home, '.ssh', 'config'), text, { mode: 0o600 })
        writeFileSync(join(home, '.ssh', 'known_hosts'), sshd.knownHostLines() + jump.knownHostLines())
      }

      /** A home with nothing but this configuration. */
      const bare = (text: string): string => {
        const home = newFolder()
        writeFileSync(join(home, '.ssh', 'config'), text, { mode: 0o600 })
        return home
      }

      test('host, port, user, several keys, IdentitiesOnly', async () => {
        const home = newFolder()
        configured(
          home,
          `Host pg*\n  HostName 127.0.0.1\n  IdentityFile ~/.ssh/missing\n  IdentityFile "${newKey()}"\n  IdentitiesOnly yes
Host *\n  User ${user}\n  Port ${sshd.port}\n`,
        )
        expect(await logIn({ settings: plain, host: 'pg1', osUser: 'someone', home, env })).toBe(user)
      })

      test('without User in it the PostgreSQL OS user logs in', async () => {
        const home = newFolder()
        configured(home, `Host pg1\n HostName 127.0.0.1\n Port ${sshd.port}\n IdentityFile ${newKey()}\n`)
        expect(await logIn({ settings: plain, host: 'pg1', home, env })).toBe(user)
      })

      test('the inventory wins over it', async () => {
        const home = newFolder()
        configured(home, `Host *\n HostName 127.0.0.1\n Port 1\n User nobody\n IdentityFile /nonexistent\n`)
        const settings = { user, port: sshd.port, knownHosts: undefined, identityFile: newKey() }
        expect(await logIn({ settings, host: 'pg1', home, env })).toBe(user)
      })

      test('Include and Match are followed', async () => {
        const home = newFolder()
        mkdirSync(join(home, 'conf.d'))
        writeFileSync(
          join(home, 'conf.d', '10-shop.conf'),
          `Host pg1\n HostName 127.0.0.1\n Port ${sshd.port}\n`,
        )
        configured(
          home,
          `Include ${home}/conf.d/*.conf\nMatch originalhost pg1${how === 'ssh -G' ? ' exec true' : ''}\n IdentityFile ${newKey()}\n User ${user}\n`,
        )
        expect(await logIn({ settings: plain, host: 'pg1', osUser: 'someone', home, env })).toBe(user)
      })

      test('another file than ~/.ssh/config', async () => {
        const home = newFolder()
        configured(home, `Host *\n User nobody\n Port 1\n`)
        const configFile = join(home, 'other')
        writeFileSync(
          configFile,
          `Host pg1\n HostName 127.0.0.1\n Port ${sshd.port}\n IdentityFile ${newKey()}\n`,
        )
        expect(await logIn({ settings: { ...plain, configFile }, host: 'pg1', home, env })).toBe(user)
      })

      test('ProxyJump, with the key of each host verified', async () => {
        const home = newFolder()
        const key = newKey()
        jump.authorize(user, readFileSync(`${key}.pub`, 'utf8'))
        const config = `Host bastion\n HostName 127.0.0.1\n Port ${jump.port}\n User ${user}\n IdentityFile ${key}
Host pg1\n HostName 127.0.0.1\n Port ${sshd.port}\n ProxyJump bastion\n IdentityFile ${key}
Host pg2\n HostName 127.0.0.1\n Port ${sshd.port}\n User ${user}\n ProxyJump bastion,%r@127.0.0.1:${jump.port}\n IdentityFile ${key}
Match all\n IdentityFile ${key}\n`
        configured(home, config)
        expect(await logIn({ settings: plain, host: 'pg1', home, env })).toBe(user)
        expect(await logIn({ settings: plain, host: 'pg2', home, env })).toBe(user)
        writeFileSync(join(home, '.ssh', 'known_hosts'), sshd.knownHostLines())
        await expect(logIn({ settings: plain, host: 'pg1', home, env })).rejects.toMatchObject({
          code: 'host-key-unknown',
          message: expect.stringContaining('bastion'),
          detail: expect.stringContaining('on the way to pg1'),
        })
        writeFileSync(join(home, '.ssh', 'known_hosts'), jump.knownHostLines())
        await expect(logIn({ settings: plain, host: 'pg1', home, env })).rejects.toMatchObject({
          code: 'host-key-unknown',
          message: expect.stringContaining('pg1'),
        })
      })

      test('a jump host keeps its own key and known_hosts, whatever the inventory names for the nodes', async () => {
        const home = newFolder()
        const jumpKey = makeKey(join(newFolder(), 'jump_key'))
        jump.authorize(user, readFileSync(`${jumpKey}.pub`, 'utf8'))
        const jumpHosts = join(home, 'jump_hosts')
        const config = (
          own: string,
        ) => `Host bastion\n HostName 127.0.0.1\n Port ${jump.port}\n User ${user}\n${own}
Host pg1\n HostName 127.0.0.1\n Port ${sshd.port}\n ProxyJump bastion\n`
        configured(home, config(` IdentityFile ${jumpKey}\n UserKnownHostsFile ${jumpHosts}\n`))
        writeFileSync(join(home, '.ssh', 'known_hosts'), '')
        writeFileSync(jumpHosts, jump.knownHostLines())
        const settings = { ...plain, identityFile: newKey(), knownHosts: sshd.knownHosts }
        expect(await logIn({ settings, host: 'pg1', home, env })).toBe(user)
        // What a jump host is not known by is not believed.
        writeFileSync(jumpHosts, '')
        await expect(logIn({ settings, host: 'pg1', home, env })).rejects.toMatchObject({
          code: 'host-key-unknown',
          hint: expect.stringContaining(jumpHosts),
        })
        // The usual key and files in ~/.ssh serve where nothing is named.
        configured(home, config(''))
        copyFileSync(jumpKey, join(home, '.ssh', 'id_ed25519'))
        expect(await logIn({ settings, host: 'pg1', home, env })).toBe(user)
        // One key and one file for all hosts, as before.
        const all = join(home, 'all_hosts')
        writeFileSync(all, jump.knownHostLines() + sshd.knownHostLines())
        jump.authorize(user, readFileSync(`${settings.identityFile}.pub`, 'utf8'))
        expect(
          await logIn({
            settings: { ...settings, knownHosts: all },
            host: 'pg1',
            home: bare(config('')),
            env,
          }),
        ).toBe(user)
      })

      test('Match user is about who logs in, also where nothing but the PostgreSQL OS user is said', async () => {
        const home = newFolder()
        configured(
          home,
          `Match user ${user} originalhost pg1\n HostName 127.0.0.1\n Port ${sshd.port}\n IdentityFile ${newKey()}
Match user someone\n User nobody\n Port 1\n`,
        )
        expect(await logIn({ settings: plain, host: 'pg1', home, env })).toBe(user)
        // Whom ssh_config itself names comes first.
        configured(home, `Host pg1\n User ${user}\n${readFileSync(join(home, '.ssh', 'config'), 'utf8')}`)
        expect(await logIn({ settings: plain, host: 'pg1', osUser: 'someone', home, env })).toBe(user)
      })

      test('a jump host that cannot reach the host says so', async () => {
        const home = newFolder()
        configured(
          home,
          `Host *\n User ${user}\n IdentityFile ${jump.identity}\nHost pg1\n HostName 127.0.0.1\n Port 1\n ProxyJump 127.0.0.1:${jump.port}\n`,
        )
        await expect(logIn({ settings: plain, host: 'pg1', home, env })).rejects.toMatchObject({
          code: 'host-unreachable',
          detail: expect.stringMatching(/jump host says.*refused/i),
        })
      })

      test('ProxyCommand', async () => {
        const home = newFolder()
        const relay = join(home, 'relay.mjs')
        writeFileSync(
          relay,
          `import net from 'node:net'; const s = net.connect(Number(process.argv[2]), '127.0.0.1'); process.stdin.pipe(s).pipe(process.stdout)`,
        )
        configured(
          home,
          `Host pg1\n Port ${sshd.port}\n IdentityFile ${newKey()}\n HostKeyAlias [127.0.0.1]:${sshd.port}\n ProxyCommand ${process.execPath} ${relay} %p\n`,
        )
        expect(await logIn({ settings: plain, host: 'pg1', home, env })).toBe(user)
      })

      test('without room for temporary files on the control host', async () => {
        const home = newFolder()
        configured(home, `Host pg1\n HostName 127.0.0.1\n Port ${sshd.port}\n IdentityFile ${newKey()}\n`)
        process.env.TMPDIR = '/nonexistent'
        try {
          expect(await logIn({ settings: plain, host: 'pg1', home, env })).toBe(user)
        } finally {
          delete process.env.TMPDIR
        }
      })

      test('a mistake in it is reported', async () => {
        const home = newFolder()
        configured(home, 'Host *\n User x\n NoSuchOption yes\n')
        const error = await logIn({ settings: { ...plain, port: 1 }, home, env }).catch((e: unknown) => e)
        // Without ssh nobody knows which options there are.
        expect(error).toMatchObject({ code: how === 'ssh -G' ? 'usage' : 'host-unreachable' })
        const configFile = '/nonexistent/config'
        await expect(logIn({ settings: { ...plain, configFile }, home, env })).rejects.toMatchObject({
          code: 'usage',
        })
      })
    },
  )
})

interface Agent {
  readonly socket: string
  add(file: string, passphrase: string): void
  clear(): void
  stop(): void
}

async function startAgent(socket: string): Promise<Agent> {
  const child = spawn('ssh-agent', ['-D', '-a', socket], { stdio: 'ignore' })
  const call = (args: readonly string[], passphrase = ''): void => {
    const askPass = `${socket}.askpass`
    writeFileSync(askPass, `#!/bin/sh\necho '${passphrase}'\n`, { mode: 0o700 })
    exec('env', [
      `SSH_AUTH_SOCK=${socket}`,
      `SSH_ASKPASS=${askPass}`,
      'SSH_ASKPASS_REQUIRE=force',
      'ssh-add',
      '-q',
      ...args,
    ])
  }
  await until('the agent answers', 20_000, () => {
    try {
      call(['-D'])
      return true
    } catch {
      return false
    }
  })
  return {
    socket,
    add: (file, passphrase) => call([file], passphrase),
    clear: () => call(['-D']),
    stop: () => child.kill(),
  }
}
