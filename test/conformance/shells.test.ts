import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Secret, shellScript } from '../../src/command.ts'
import { createSshTransport } from '../../src/transport/ssh-transport.ts'
import type { Transport } from '../../src/transport/transport.ts'
import { awkwardArguments } from './kit/awkward.ts'
import { findProgram, isRoot, reportMissing } from './kit/machine.ts'
import { hasSshd, startSshd, type TestSshd } from './kit/sshd.ts'
import { createTestUsers } from './kit/users.ts'

/** Start-up files that print, complain, set what PostgreSQL's programs read, and time out. */
const noise: Readonly<Record<string, { file: string; text: string }>> = {
  bash: {
    file: '.bashrc',
    text: `echo "Welcome! \\$HOME=$HOME"; echo "noise on stderr" >&2; stty -a
export PGDATA=/wrong PGPORT=1 PGHOST=wrong LANG=de_DE.UTF-8 LC_ALL=de_DE.UTF-8 TMOUT=1 BASH_ENV=/wrong CDPATH=/
umask 000; cd /tmp; alias echo='echo aliased'; printf 'no newline at the end'; set -xv
`,
  },
  dash: { file: '.profile', text: 'echo never read\n' },
  tcsh: {
    file: '.cshrc',
    text: `echo "Welcome, it is csh"; setenv PGDATA /wrong; setenv TMOUT 1; umask 0; set echo; stty -a\n`,
  },
  fish: {
    file: '.config/fish/config.fish',
    text: `echo "Welcome, it's fish"; set -gx PGDATA /wrong; set -gx TMOUT 1; umask 0; stty -a\n`,
  },
  zsh: { file: '.zshenv', text: 'echo zsh; export PGDATA=/wrong; umask 0; setopt XTRACE\n' },
}
const shells = Object.keys(noise).filter((shell) => findProgram(shell) !== undefined)
for (const shell of Object.keys(noise))
  if (!shells.includes(shell)) reportMissing(`login shell ${shell} (install it)`)

const canTest = hasSshd && isRoot
if (!canTest) reportMissing('other login shells (run the tests as root, with openssh-server)')

describe.skipIf(!canTest)('whatever the login shell is', () => {
  const users = createTestUsers()
  let sshd: TestSshd

  beforeAll(async () => {
    for (const shell of shells) {
      const user = users.add(shell, { shell: findProgram(shell)!, sudo: true })
      const { file, text } = noise[shell]!
      const path = join(users.home(shell), file)
      mkdirSync(join(path, '..'), { recursive: true })
      writeFileSync(path, text)
      expect(user).not.toBe('')
    }
    users.add('os')
    users.add('no', { shell: '/usr/sbin/nologin' })
    users.add('hangs')
    writeFileSync(join(users.home('hangs'), '.bashrc'), 'sleep 600\n')
    users.add('exits')
    writeFileSync(join(users.home('exits'), '.bashrc'), 'echo "go away" >&2; exit 0\n')
    const names = [...shells, 'no', 'exits', 'hangs'].map(users.name)
    sshd = await startSshd({ users: names, config: [`Banner ${bannerFile()}`, 'PrintMotd yes'] })
  })
  afterAll(async () => {
    await sshd?.stop()
    users.removeAll()
  })

  const bannerFile = (): string => {
    const file = join(users.home('os'), 'banner')
    writeFileSync(file, 'Authorised use only!\n'.repeat(20))
    return file
  }
  const open = (login: string, osUser = login): Transport =>
    createSshTransport({
      host: '127.0.0.1',
      settings: sshd.settings(users.name(login)),
      osUser: users.name(osUser),
      env: {},
      home: '/nonexistent',
    })

  describe.each(shells)('%s', (shell) => {
    test.each(['login', 'os'])('commands run as %s give what they would without it', async (role) => {
      const transport = open(shell, role === 'os' ? 'os' : shell)
      const script =
        'env; echo "[$#]"; umask; id -un; for a; do printf "%s\\0" "$a"; done; echo err >&2; exit 5'
      const result = await transport.run(shellScript('a test', script, awkwardArguments))
      const user = users.name(role === 'os' ? 'os' : shell)
      expect(result.status).toBe(5)
      expect(result.stderr).toBe('err\n')
      const [head = '', args = ''] = result.stdout.split(`[${awkwardArguments.length}]\n`)
      const environment = Object.fromEntries(
        head
          .trim()
          .split('\n')
          .map((line) => line.split('=')),
      )
      expect(environment).toMatchObject({ HOME: `/home/${user}`, USER: user, LOGNAME: user, LC_ALL: 'C' })
      expect(head).not.toMatch(/^(PG|TMOUT|LANG|BASH_ENV|CDPATH|SUDO|MAIL|SSH)/m)
      expect(args).toBe(`0077\n${user}\n${awkwardArguments.map((argument) => `${argument}\0`).join('')}`)
      await transport.close()
    })

    test('standard input, a long script and a long-lived command work too', async () => {
      const transport = open(shell)
      const secret = new Secret('a\'b\\c:d%s $(id) "é\n')
      const echoed = await transport.run(shellScript('cat', 'cat', [], { stdin: secret }))
      expect(echoed.stdout).toBe(secret.reveal())
      for (const size of [1000, 20_000, 80_000, 200_000]) {
        const long = await transport.run(shellScript('long', `: '${'x'.repeat(size)}'; echo done`))
        expect(long).toEqual({ status: 0, signal: null, stdout: 'done\n', stderr: '' })
      }
      const running = await transport.start(
        shellScript('read', 'while read -r l; do echo "$l"; done; exit 3'),
      )
      let seen = ''
      running.onStdout((text) => {
        seen += text
      })
      // Longer than the TMOUT of the start-up files.
      await new Promise((resolve) => setTimeout(resolve, 1500))
      await running.write('late\n')
      running.endInput()
      expect(await running.finished).toEqual({ status: 3, signal: null })
      expect(seen).toBe('late\n')
      await transport.close()
    })
  })

  test('a login without a shell is refused in words', async () => {
    const transport = open('no')
    await expect(transport.run(shellScript('a test', 'true'))).rejects.toMatchObject({
      code: 'auth-refused',
      message: expect.stringContaining(users.name('no')),
      detail: expect.stringMatching(/not available/),
    })
    await transport.close()
  })

  test('a start-up file that hangs does not hold a long-lived command for ever', async () => {
    const transport = open('hangs')
    await transport.connect()
    const startedAt = performance.now()
    const starting = transport.start(shellScript('a test', 'cat'), { beginWithinMs: 500 })
    await expect(starting).rejects.toMatchObject({ code: 'timeout', detail: expect.stringMatching(/0.5 s/) })
    expect(performance.now() - startedAt).toBeLessThan(20_000)
    await transport.close()
  })

  test('a start-up file that ends the shell is reported with what it said', async () => {
    const transport = open('exits')
    await expect(transport.run(shellScript('a test', 'true'))).rejects.toMatchObject({
      code: 'auth-refused',
      detail: expect.stringMatching(/go away/),
    })
    await transport.close()
  })
})
