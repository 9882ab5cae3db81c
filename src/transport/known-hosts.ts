import { createHash, createHmac } from 'node:crypto'
import { matchesHostPatterns } from './host-pattern.ts'

/** One line of a known_hosts file. */
export interface KnownHost {
  readonly file: string
  readonly line: number
  readonly marker: 'revoked' | 'cert-authority' | undefined
  /** As written: a comma list of patterns, or one `|1|salt|hash`. */
  readonly hosts: string
  /** e.g. `ssh-ed25519`. */
  readonly type: string
  /** The key as it travels: base64. */
  readonly key: string
}

/** Reads the lines of a known_hosts file; lines that are none are passed over, as OpenSSH does. */
export function parseKnownHosts(file: string, text: string): readonly KnownHost[] {
  return text.split('\n').flatMap((line, index) => {
    const words = line.trim().split(/\s+/)
    const marker = words[0]?.startsWith('@') ? words.shift()?.slice(1) : undefined
    const [hosts = '', type = '', key = ''] = words
    if (hosts === '' || hosts.startsWith('#') || key === '') return []
    if (marker !== undefined && marker !== 'revoked' && marker !== 'cert-authority') return []
    return [{ file, line: index + 1, marker, hosts, type, key }]
  })
}

/** The name a host is known by: `db1`, or `[db1]:2222` on a port of its own. */
export function knownHostName(host: string, port: number): string {
  const name = host.toLowerCase()
  return port === 22 ? name : `[${name}]:${port}`
}

/** Whether a line is about the host of that name, e.g. `[db1]:2222`. */
export function isAboutHost({ hosts }: KnownHost, name: string): boolean {
  if (!hosts.startsWith('|')) return matchesHostPatterns(name, hosts.split(','))
  const [, version, salt, hash] = hosts.split('|')
  if (version !== '1' || salt === undefined) return false
  return createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest('base64') === hash
}

/** The line that makes a host known from now on. */
export function knownHostLine(name: string, key: Buffer, salt?: Buffer): string {
  const hash = salt && createHmac('sha1', salt).update(name).digest('base64')
  const hosts = salt === undefined ? name : `|1|${salt.toString('base64')}|${hash}`
  return `${hosts} ${keyTypeOf(key)} ${key.toString('base64')}\n`
}

/** The type that stands at the beginning of a key in its wire format, e.g. `ssh-ed25519`. */
export function keyTypeOf(key: Buffer): string {
  return key.length < 4 ? '' : key.toString('latin1', 4, 4 + key.readUInt32BE(0))
}

/** A key's fingerprint as `ssh-keygen -l` prints it: `SHA256:…`. */
export function fingerprintOf(key: Buffer): string {
  return `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`
}
