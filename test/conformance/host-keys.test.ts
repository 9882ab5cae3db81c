import { createHmac } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { program } from '../../src/command.ts'
import type { SshSettings } from '../../src/config/inventory.ts'
import { createSshTransport } from '../../src/transport/ssh-transport.ts'
import { exec, me, until } from './kit/machine.ts'
import { hasSshd, type KeyType, startSshd, type TestSshd } from './kit/sshd.ts'

describe.skipIf(!hasSshd)("the host's key", () => {
  let sshd: TestSshd
  let other: TestSshd
  let count = 0

  beforeAll(async () => {
    sshd = await startSshd()
    other = await startSshd({ hostKeys: ['ed25519'] })
  })
  afterAll(async () => {
    await sshd?.stop()
    await other?.stop()
  })

  const fileWith = (text: string): string => {
    const file = join(sshd.folder, `known_hosts_${++count}`)
    writeFileSync(file, text)
    return file
  }
  const logIn = async (overrides: Partial<SshSettings>, host = '127.0.0.1', to = sshd): Promise<string> => {
    const settings = to.settings(me.username, { identityFile: sshd.identity, ...overrides })
    const transport = createSshTransport({ host, settings, osUser: me.username, env: {}, home: sshd.folder })
    try {
      const { stdout } = await transport.run(program('echo', ['in']))
      return stdout
    } finally {
      await transport.close()
    }
  }
  const trusting = (text: string): Promise<string> => logIn({ knownHosts: fileWith(text) })
  const keyOf = (type: KeyType, of = sshd): string => of.knownHostLines([type]).split(' ').slice(1).join(' ')
  const fingerprintOf = (type: KeyType, of = sshd): string =>
    exec('ssh-keygen', ['-l', '-f', join(of.folder, `host_${type}.pub`)]).split(' ')[1]!
  const hashed = (name: string): string => {
    const salt = Buffer.from('01234567890123456789')
    return `|1|${salt.toString('base64')}|${createHmac('sha1', salt).update(name).digest('base64')}`
  }

  test.each(['ed25519', 'ecdsa', 'rsa'] as const)('is known where only the %s key is', async (type) => {
    expect(await trusting(sshd.knownHostLines([type]))).toBe('in\n')
  })

  test('is known by every form that OpenSSH writes', async () => {
    const name = `[127.0.0.1]:${sshd.port}`
    const key = keyOf('ed25519')
    const foreign = keyOf('ed25519', other)
    for (const line of [
      `db1,${name},db2 ${key}`,
      `[127.0.0.*]:${sshd.port} ${key}`,
      `[127.?.0.1]:* ${key}`,
      `${hashed(name)} ${key}`,
      `# a comment\n\n  ${name}\t${key.trim()} and a comment`,
      `!${name},* ${foreign}${name} ${key}`,
      `${name} ${foreign}${name} ${key}`,
      `127.0.0.1 ${key}`,
      `127.0.0.1 ${foreign}${name} ${key}`,
      `@cert-authority * ${foreign}${name} ${key}`,
      `@revoked ${name} ${foreign}${name} ${key}`,
    ])
      expect(await trusting(line), line).toBe('in\n')
  })

  test('unknown is refused with its fingerprint and the command that adds it', async () => {
    for (const text of [
      '',
      `[127.0.0.2]:${sshd.port} ${keyOf('ed25519')}`,
      `!*,[127.0.0.1]:${sshd.port} ${keyOf('ed25519')}`,
    ]) {
      const file = fileWith(text)
      const error = await logIn({ knownHosts: file }).catch((e: unknown) => e)
      expect(error).toMatchObject({
        code: 'host-key-unknown',
        exitCode: 4,
        detail: expect.stringContaining(fingerprintOf('ed25519')),
        hint: expect.stringContaining(`ssh-keyscan -p ${sshd.port} 127.0.0.1 >> ${file}`),
      })
      expect(readFileSync(file, 'utf8')).toBe(text)
    }
  })

  test('unknown where only a certificate authority is trusted says so', async () => {
    await expect(trusting(`@cert-authority * ${keyOf('ed25519')}`)).rejects.toMatchObject({
      code: 'host-key-unknown',
      detail: expect.stringMatching(/certificate/),
    })
  })

  test.each(['strict', 'accept-new'] as const)(
    'changed is refused under %s, with both fingerprints and the line',
    async (hostKeyPolicy) => {
      const name = `[127.0.0.1]:${sshd.port}`
      const file = fileWith(`# first line\n${name} ${keyOf('ed25519', other)}`)
      await expect(logIn({ knownHosts: file, hostKeyPolicy })).rejects.toMatchObject({
        code: 'host-key-changed',
        detail: expect.stringMatching(
          new RegExp(
            `${file}:2.*${quotePattern(fingerprintOf('ed25519', other))}.*${quotePattern(fingerprintOf('ed25519'))}`,
          ),
        ),
        hint: expect.stringContaining(`ssh-keygen -R '${name}' -f ${file}`),
      })
    },
  )

  test('of another type than the known ones counts as changed, also under accept-new', async () => {
    const settings = {
      knownHosts: fileWith(`[127.0.0.1]:${other.port} ${keyOf('rsa')}`),
      hostKeyPolicy: 'accept-new',
    }
    other.authorize(me.username, readFileSync(`${sshd.identity}.pub`, 'utf8'))
    await expect(logIn(settings as Partial<SshSettings>, '127.0.0.1', other)).rejects.toMatchObject({
      code: 'host-key-changed',
    })
  })

  test('revoked is refused even where it is known', async () => {
    await expect(trusting(`${sshd.knownHostLines()}@revoked * ${keyOf('ed25519')}`)).rejects.toMatchObject({
      code: 'host-key-revoked',
    })
  })

  test('revoked by RevokedHostKeys is refused', async () => {
    const configFile = join(sshd.folder, 'config_revoked')
    const revoked = fileWith(`# old\n${keyOf('ed25519')}`)
    writeFileSync(configFile, `Host *\n RevokedHostKeys ${revoked}\n`)
    await expect(logIn({ configFile })).rejects.toMatchObject({ code: 'host-key-revoked' })
    writeFileSync(configFile, `Host *\n RevokedHostKeys /nonexistent\n`)
    await expect(logIn({ configFile })).rejects.toMatchObject({ code: 'host-key-unknown' })
  })

  test('is learnt under accept-new, once, and then known', async () => {
    const file = join(sshd.folder, 'new', '.ssh', 'known_hosts')
    const settings = { knownHosts: file, hostKeyPolicy: 'accept-new' } as const
    await logIn(settings)
    const learnt = readFileSync(file, 'utf8')
    expect(learnt).toBe(`[127.0.0.1]:${sshd.port} ${keyOf('ed25519')}`)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(statSync(join(file, '..')).mode & 0o777).toBe(0o700)
    await logIn(settings)
    expect(readFileSync(file, 'utf8')).toBe(learnt)
    expect(await logIn({ knownHosts: file })).toBe('in\n')
  })

  test('two hosts learnt at the same time both stay, after a line without an end', async () => {
    const file = fileWith('db9 ssh-ed25519 AAAA')
    const settings = { knownHosts: file, hostKeyPolicy: 'accept-new' } as const
    await Promise.all([logIn(settings), logIn(settings, '127.0.0.1', other), logIn(settings, 'localhost')])
    const lines = readFileSync(file, 'utf8').trim().split('\n')
    expect(lines.map((line) => line.split(' ')[0]).sort()).toEqual(
      ['db9', `[127.0.0.1]:${sshd.port}`, `[127.0.0.1]:${other.port}`, `[localhost]:${sshd.port}`].sort(),
    )
  })

  test('is learnt also when the login is refused afterwards, as OpenSSH does', async () => {
    const file = join(sshd.folder, 'learnt')
    const settings = { knownHosts: file, hostKeyPolicy: 'accept-new', identityFile: '/nonexistent' } as const
    await expect(logIn(settings)).rejects.toMatchObject({ code: 'auth-refused' })
    await until('it is learnt', 20_000, () => existsSync(file))
  })

  test('is looked up in the files that ssh_config names, under its HostKeyAlias', async () => {
    const config = join(sshd.folder, 'config')
    const files = [fileWith(''), fileWith(`shop-db ${keyOf('rsa')}`)]
    writeFileSync(
      config,
      `Host pg1\n HostName 127.0.0.1\n HostKeyAlias shop-db\n UserKnownHostsFile ${files.join(' ')}\n GlobalKnownHostsFile none\n`,
    )
    const settings = { configFile: config, knownHosts: undefined }
    expect(await logIn(settings, 'pg1')).toBe('in\n')
  })

  test('changed is refused also where ssh_config names its file with a blank in it', async () => {
    const folder = join(sshd.folder, 'known hosts')
    mkdirSync(folder)
    const file = join(folder, 'known')
    writeFileSync(file, `shop-db ${keyOf('ed25519', other)}\n`)
    const config = join(sshd.folder, 'config-blank')
    writeFileSync(
      config,
      `Host pg1\n HostName 127.0.0.1\n HostKeyAlias shop-db\n UserKnownHostsFile "${file}" ${fileWith('')}\n GlobalKnownHostsFile none\n`,
    )
    const settings = {
      configFile: config,
      knownHosts: undefined,
      connectTimeoutMs: 30_000,
      hostKeyPolicy: 'accept-new',
    } as const
    await expect(logIn(settings, 'pg1')).rejects.toMatchObject({ code: 'host-key-changed' })
    writeFileSync(file, `shop-db ${keyOf('ed25519')}\n`)
    expect(await logIn({ ...settings, hostKeyPolicy: 'strict' }, 'pg1')).toBe('in\n')
  })

  test('is looked up in ~/.ssh/known_hosts where nothing else is said', async () => {
    mkdirSync(join(sshd.folder, '.ssh'), { recursive: true })
    writeFileSync(join(sshd.folder, '.ssh', 'known_hosts2'), sshd.knownHostLines())
    expect(await logIn({ knownHosts: undefined })).toBe('in\n')
  })
})

function quotePattern(text: string): string {
  return text.replaceAll(/[+/.]/g, '\\$&')
}
