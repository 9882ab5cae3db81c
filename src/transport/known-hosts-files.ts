import { mkdir, open, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { ReplctlError } from '../errors.ts'
import { type KnownHost, parseKnownHosts } from './known-hosts.ts'

/**
 * Reads all known_hosts files; one that does not exist is empty.
 * @throws {ReplctlError} `host-key-unknown` if one cannot be read: what it revokes would go unseen
 */
export async function readKnownHosts(files: readonly string[]): Promise<readonly KnownHost[]> {
  const lists = await Promise.all(files.map(readOne))
  return lists.flat()
}

async function readOne(file: string): Promise<readonly KnownHost[]> {
  try {
    return parseKnownHosts(file, await readFile(file, 'utf8'))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw unreadable(file, error)
  }
}

function unreadable(file: string, cause: unknown): ReplctlError {
  return new ReplctlError('host-key-unknown', `could not read known hosts file ${file}`, {
    detail: `${(cause as Error).message}.`,
    hint: 'Make it readable, or name another one in ssh.known_hosts or ~/.ssh/config.',
    cause,
  })
}

/**
 * Reads a file of RevokedHostKeys: public keys, one a line.
 * @throws {ReplctlError} `host-key-unknown` if it cannot be read, or is a binary revocation list: OpenSSH, too,
 *   then trusts no host
 */
export async function readRevokedKeys(file: string): Promise<readonly KnownHost[]> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw unreadable(file, error)
  })
  if (text.startsWith('SSHKRL'))
    throw unreadable(file, new Error('binary revocation lists are not supported'))
  const lines = text.split('\n').map((line) => (line.trim() === '' ? '' : `@revoked * ${line}`))
  return parseKnownHosts(file, lines.join('\n'))
}

const appending = new Map<string, Promise<void>>()

/** Adds a line. Hosts learnt at the same time all stay: each line is one write to the file's end. */
export function learnHostKey(file: string, line: string): Promise<void> {
  const before = appending.get(file) ?? Promise.resolve()
  const adding = before.catch(() => {}).then(() => appendLine(file, line))
  appending.set(file, adding)
  return adding
}

async function appendLine(file: string, line: string): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 })
    const handle = await open(file, 'a+', 0o600)
    try {
      const { size } = await handle.stat()
      const last = Buffer.alloc(1)
      if (size > 0) await handle.read(last, 0, 1, size - 1)
      const isOpenEnded = size > 0 && last.toString() !== '\n'
      await handle.appendFile(isOpenEnded ? `\n${line}` : line)
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw new ReplctlError('host-key-unknown', `could not add a host key to ${file}`, {
      detail: `${(error as Error).message}.`,
      hint: 'Make it writable, or name another one in ssh.known_hosts.',
      cause: error,
    })
  }
}
