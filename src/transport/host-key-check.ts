import type { ServerHostKeyAlgorithm } from 'ssh2'
import { ReplctlError } from '../errors.ts'
import { fingerprintOf, isAboutHost, type KnownHost, keyTypeOf, knownHostName } from './known-hosts.ts'

export interface HostKeySubject {
  /** As written in the inventory; for messages. */
  readonly host: string
  /** The name looked up: HostKeyAlias, else the address connected to. */
  readonly lookupHost: string
  readonly port: number
  /** HostKeyAlias is looked up without the port. */
  readonly isAlias: boolean
  /** Where a key is written to; the first file that may be written. */
  readonly learnInto: string | undefined
}

export type HostKeyVerdict =
  | { readonly is: 'known' }
  | { readonly is: 'new' }
  | { readonly is: 'refused'; readonly error: ReplctlError }

/** The name a host's key is looked up and learnt by. */
export function lookupName({ lookupHost, port, isAlias }: HostKeySubject): string {
  return isAlias ? lookupHost.toLowerCase() : knownHostName(lookupHost, port)
}

/** Judges a host's key as OpenSSH does, except that a host known by keys of other types counts as changed. */
export function judgeHostKey(
  subject: HostKeySubject,
  key: Buffer,
  known: readonly KnownHost[],
): HostKeyVerdict {
  const encoded = key.toString('base64')
  const named = linesAbout(lookupName(subject), known)
  const bare = subject.isAlias ? [] : linesAbout(subject.lookupHost.toLowerCase(), known)
  const all = [...named, ...bare]
  const revoked = all.find((line) => line.marker === 'revoked' && line.key === encoded)
  if (revoked) return { is: 'refused', error: keyRevoked(subject, key, revoked) }
  // A host on a port of its own may be known by its bare name, but need not be: another sshd may own that.
  if (all.some((line) => line.marker === undefined && line.key === encoded)) return { is: 'known' }
  const plain = named.filter((line) => line.marker === undefined)
  const other = plain.find((line) => line.type === keyTypeOf(key)) ?? plain[0]
  if (other) return { is: 'refused', error: keyChanged(subject, key, other) }
  return { is: 'new' }
}

function linesAbout(name: string, known: readonly KnownHost[]): readonly KnownHost[] {
  return known.filter((line) => isAboutHost(line, name))
}

/** ssh2 asks for its favourite key type; asking for one we know avoids a refusal without a reason. */
export function preferKnownTypes(
  subject: HostKeySubject,
  known: readonly KnownHost[],
): ServerHostKeyAlgorithm[] {
  const named = linesAbout(lookupName(subject), known)
  const about = named.length > 0 ? named : linesAbout(subject.lookupHost.toLowerCase(), known)
  const types = about.flatMap((line) => (line.marker === undefined ? [line.type] : []))
  const isKnown = (algorithm: string): boolean =>
    types.includes(algorithm.replace(/^rsa-sha2-\d+$/, 'ssh-rsa'))
  return [...algorithms.filter(isKnown), ...algorithms.filter((algorithm) => !isKnown(algorithm))]
}

const algorithms: readonly ServerHostKeyAlgorithm[] = [
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'rsa-sha2-512',
  'rsa-sha2-256',
]

/** The error for a host that no known_hosts file names. */
export function keyUnknown(subject: HostKeySubject, key: Buffer, known: readonly KnownHost[]): ReplctlError {
  const authority = linesAbout(lookupName(subject), known).find((line) => line.marker === 'cert-authority')
  const certificate =
    authority &&
    ` ${authority.file}:${authority.line} trusts a certificate authority, but host certificates are not supported.`
  const { host, lookupHost, port, isAlias, learnInto } = subject
  const scan = `ssh-keyscan -p ${port} ${lookupHost} >> ${learnInto ?? '~/.ssh/known_hosts'}`
  const connect = `ssh -p ${port} ${host}`
  return new ReplctlError('host-key-unknown', `host key of ${host} is not known`, {
    detail: `It offers ${keyTypeOf(key)} ${fingerprintOf(key)}, and no known_hosts file names ${lookupName(subject)}.${certificate ?? ''}`,
    hint: `Compare the fingerprint with the host's, then add it: ${isAlias ? connect : scan} (or set ssh.host_key_policy: accept-new).`,
  })
}

function keyChanged(subject: HostKeySubject, key: Buffer, line: KnownHost): ReplctlError {
  return new ReplctlError('host-key-changed', `host key of ${subject.host} has changed`, {
    detail: `${where(line)} has ${line.type} ${fingerprintOf(Buffer.from(line.key, 'base64'))}, the host offers ${keyTypeOf(key)} ${fingerprintOf(key)}. Someone may be in between.`,
    hint: `If the host was built anew, compare the fingerprint there, then forget the old key: ssh-keygen -R '${lookupName(subject)}' -f ${line.file}`,
  })
}

function keyRevoked(subject: HostKeySubject, key: Buffer, line: KnownHost): ReplctlError {
  return new ReplctlError('host-key-revoked', `host key of ${subject.host} is revoked`, {
    detail: `${where(line)} revokes ${keyTypeOf(key)} ${fingerprintOf(key)}, which the host still offers.`,
    hint: 'Give the host a new key with ssh-keygen -A after removing the old one, or find out who answers there.',
  })
}

function where({ file, line }: KnownHost): string {
  return `${file}:${line}`
}
