import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  archiveCommandLine,
  archiveConnectionName,
  archiveKnownHosts,
  authorizedKeysLine,
  ensureAuthorizedKeysLine,
  hostKeysIn,
  parseArchiveCheck,
  parseArchiveError,
  renderArchiveFetch,
  renderArchivePush,
  renderArchiveReceive,
  renderArchiveStream,
  restoreCommandLine,
  runsScript,
  standbyRestoreCommandLine,
} from '../../../src/postgres/archive.ts'

const template = (name: string): string =>
  readFileSync(new URL(`../../../templates/archive/archive-${name}.sh`, import.meta.url), 'utf8')

const client = {
  cluster: 'shop',
  stateDirectory: `/home/o'neil/.replctl/shop`,
  systemIdentifier: '7123456789012345678',
  host: 'backup1',
  port: 2222,
  user: 'postgres',
  dir: '/var/lib/replctl/shop',
  connectTimeoutMs: 1500,
}
const key = {
  cluster: 'shop',
  node: 'pg1',
  systemIdentifier: '7123456789012345678',
  dir: '/var/lib/replctl/shop',
  receiverPath: '/var/lib/postgresql/.replctl/shop/archive-receive',
  publicKey: 'ssh-ed25519 AAAAC3Nza+/= somebody@somewhere\n',
}
const line = authorizedKeysLine(key)

describe('the scripts', () => {
  test('carry what they need to know as quoted words at the top', () => {
    const push = renderArchivePush(template('push'), { ...client, compression: 'auto' })
    expect(push).toContain(`
cluster='shop'
state_directory='/home/o'\\''neil/.replctl/shop'
system_identifier='7123456789012345678'
archive_host='backup1'
archive_port='2222'
archive_user='postgres'
compression='auto'
connect_timeout='2'
connection='${archiveConnectionName(client)}'
`)
    expect(renderArchiveFetch(template('fetch'), client)).toContain(`\narchive_host='backup1'\n`)
    expect(renderArchiveReceive(template('receive'), { cluster: 'shop' })).toContain(`\ncluster='shop'\n`)
  })

  test('the supervisor of a stream knows how to log in, and no password', () => {
    const text = renderArchiveStream(template('stream'), {
      cluster: 'shop',
      walDirectory: "/a b/o'neil/7123456789012345678/wal",
      conninfo: 'user=r passfile=/x',
      systemIdentifier: '7300000000000000001',
      slot: 'shop_archive',
    })
    expect(text).toContain(
      `\nwal='/a b/o'\\''neil/7123456789012345678/wal'\nconninfo='user=r passfile=/x'\nslot='shop_archive'\n`,
    )
  })

  test.each(['push', 'fetch', 'receive', 'stream'])('archive-%s is plain sh but for its head', (name) => {
    const text = template(name)
    expect(text.startsWith('#!/bin/sh\n')).toBe(true)
    expect(text.slice(text.indexOf('set -u'))).not.toMatch(/\{\{|\{%/)
  })

  test('judge a segment and reach the archive host in the same way', () => {
    const part = (name: string, from: string) => {
      const text = template(name)
      const start = text.indexOf(from)
      return text.slice(start, start + text.slice(start).search(/\n[})]\n/))
    }
    expect(part('fetch', 'segment_fault() {')).toBe(part('push', 'segment_fault() {'))
    expect(part('receive', 'segment_fault() {')).toBe(part('push', 'segment_fault() {'))
    expect(part('fetch', 'segment_outline() {')).toBe(part('push', 'segment_outline() {'))
    expect(part('fetch', 'ask() (')).toBe(part('push', 'ask() ('))
  })

  test('refuse a system identifier that is not a number', () => {
    expect(() => renderArchiveFetch(template('fetch'), { ...client, systemIdentifier: '7 8' })).toThrow(
      RangeError,
    )
  })
})

describe('the commands', () => {
  test('PostgreSQL fills in path and name; a per cent sign of the path stays one', () => {
    const push = `'/100%%/o'\\''neil/archive-push'`
    expect(archiveCommandLine(`/100%/o'neil/archive-push`)).toBe(
      `if [ -x ${push} ]; then exec ${push} '%p' '%f'; fi; echo 'archive-push is missing, or may not be run: see replctl status' >&2; exit 9`,
    )
    expect(restoreCommandLine(`/100%/o'neil/archive-fetch`)).toBe(
      `'/100%%/o'\\''neil/archive-fetch' '%f' '%p'`,
    )
  })

  test('know whether they run a script of replctl, however its path is written', () => {
    const path = `/100%/o'neil/archive-push`
    expect(runsScript(archiveCommandLine(path), path)).toBe(true)
    expect(
      runsScript(`'/home/pg/.replctl/shop/archive-push' '%p' '%f'`, '/home/pg/.replctl/shop/archive-push'),
    ).toBe(true)
    for (const other of ['', 'false', 'cp %p /archive/%f', archiveCommandLine('/elsewhere/archive-push')]) {
      expect(runsScript(other, path)).toBe(false)
    }
  })

  /** As PostgreSQL runs it: placeholders filled in, through sh -c. */
  const run = (command: string) => {
    const filled = command.replaceAll(/%[pf%]/g, (what) => ({ '%p': 'pg_wal/X', '%f': 'X' })[what] ?? '%')
    return spawnSync('sh', ['-c', filled], { encoding: 'utf8' })
  }

  test.each([
    ['archive_command', archiveCommandLine, 'pg_wal/X X'],
    ['restore_command of a standby', standbyRestoreCommandLine, 'X pg_wal/X'],
  ])(
    '%s ends below 126 where its script is missing or may not be run, and with the signal that ended it',
    (_name, line, words) => {
      const dir = mkdtempSync(join(tmpdir(), 'replctl-command-'))
      try {
        const path = join(dir, "o'n 100%")
        const gone = run(line(path))
        expect([gone.status, gone.stderr]).toEqual([9, expect.stringContaining('is missing')])
        writeFileSync(path, '#!/bin/sh\necho "$@"; kill -TERM $$\n')
        expect(run(line(path)).status).toBe(9)
        chmodSync(path, 0o700)
        const ran = run(line(path))
        expect([ran.stdout, ran.signal]).toEqual([`${words}\n`, 'SIGTERM'])
      } finally {
        rmSync(dir, { recursive: true })
      }
    },
  )

  test('another archive host, user, port, directory or system identifier gets another connection', () => {
    const changes = [{}, { host: 'b' }, { port: 1 }, { user: 'u' }, { dir: '/b' }, { systemIdentifier: '8' }]
    const names = changes.map((change) => archiveConnectionName({ ...client, ...change }))
    expect(new Set(names).size).toBe(6)
    for (const name of names) expect(name).toMatch(/^ssh-[0-9a-f]{8}$/)
  })
})

describe('known hosts', () => {
  test('are read from whatever stands in the public keys: empty lines, a missing end, words that are no key', () => {
    const text =
      '\n\nssh-ed25519 AAAAone root@backup1\n\n# made by a template\n\nssh-rsa AAAAtwo==\n\n\nssh-ed25519 AAAAone\n\n'
    expect(hostKeysIn(text)).toEqual(['ssh-ed25519 AAAAone', 'ssh-rsa AAAAtwo=='])
    expect(hostKeysIn('')).toEqual([])
  })

  test('name the port only where it is not 22', () => {
    const keys = ['ssh-ed25519 AAAA root@backup1\n', 'ssh-rsa BBBB']
    expect(archiveKnownHosts({ host: 'backup1', port: 22 }, keys)).toBe(
      'backup1 ssh-ed25519 AAAA\nbackup1 ssh-rsa BBBB\n',
    )
    expect(archiveKnownHosts({ host: 'backup1', port: 2222 }, keys.slice(0, 1))).toBe(
      '[backup1]:2222 ssh-ed25519 AAAA\n',
    )
  })
})

describe('authorized keys', () => {
  test('a key is bound to the receiver, the directory and the system identifier', () => {
    expect(line).toBe(
      `restrict,command="'/var/lib/postgresql/.replctl/shop/archive-receive' '/var/lib/replctl/shop' ` +
        `'7123456789012345678'" ssh-ed25519 AAAAC3Nza+/= replctl:shop:pg1`,
    )
  })

  test('quotes are escaped as sshd wants it, line breaks and things that are no keys are refused', () => {
    expect(authorizedKeysLine({ ...key, dir: '/a "b"' })).toContain(` '/a \\"b\\"' `)
    expect(() => authorizedKeysLine({ ...key, dir: '/a\nssh-rsa' })).toThrow(RangeError)
    expect(() => authorizedKeysLine({ ...key, node: 'pg1 x' })).toThrow(RangeError)
    expect(() => authorizedKeysLine({ ...key, publicKey: 'ssh-ed25519' })).toThrow(RangeError)
    expect(() => authorizedKeysLine({ ...key, systemIdentifier: '$(id)' })).toThrow(RangeError)
  })

  test('the line goes to the end, also after a last line without an end', () => {
    expect(ensureAuthorizedKeysLine('', line)).toBe(`${line}\n`)
    expect(ensureAuthorizedKeysLine('ssh-rsa BBBB me', line)).toBe(`ssh-rsa BBBB me\n${line}\n`)
    expect(ensureAuthorizedKeysLine('# keys\r\n\n', line)).toBe(`# keys\r\n\n${line}\n`)
  })

  test('it is there once, whatever was there before, and every other line stays', () => {
    const older = authorizedKeysLine({ ...key, dir: '/old', publicKey: 'ssh-ed25519 BBBB' })
    const others = [
      authorizedKeysLine({ ...key, node: 'pg2' }),
      authorizedKeysLine({ ...key, cluster: 'shop2' }),
      'ssh-ed25519 CCCC replctl:shop:pg1',
      `# ${line}`,
    ]
    const text = `${others[0]}\n${older}\n${others[1]}\n${others[2]}\n${older}\n${others[3]}`
    const ensured = ensureAuthorizedKeysLine(text, line)
    expect(ensured).toBe(`${others[0]}\n${line}\n${others[1]}\n${others[2]}\n${others[3]}`)
    expect(ensureAuthorizedKeysLine(ensured, line)).toBe(ensured)
  })

  test('only a line of its own is ever added', () => {
    expect(() => ensureAuthorizedKeysLine('', 'ssh-ed25519 CCCC me')).toThrow(RangeError)
  })
})

describe('what the scripts say', () => {
  test('a check tells what the archive host can store, past what a login shell prints', () => {
    expect(parseArchiveCheck('Welcome\nreplctl-archive 1 none gz zst\n')).toEqual(['none', 'gz', 'zst'])
    expect(() => parseArchiveCheck('Welcome\n')).toThrow(RangeError)
  })

  test('the last failure is read with its status and file', () => {
    const text = '3 00000001000000000000000A\narchive-receive: shop: conflict: x\nhint: y\n'
    expect(parseArchiveError(text)).toEqual({
      status: 3,
      file: '00000001000000000000000A',
      message: 'archive-receive: shop: conflict: x\nhint: y',
    })
    expect(parseArchiveError('')).toBeUndefined()
  })
})
