import { createPrivateKey } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { ParsedKey } from 'ssh2'

/** A private key file as found. */
export type IdentityFile =
  | { readonly is: 'usable'; readonly path: string; readonly key: ParsedKey }
  | {
      readonly is: 'encrypted'
      readonly path: string
      /** Its public half in wire format, where the file or its `.pub` tells it. */
      readonly publicKey: Buffer | undefined
      readonly text: string
    }
  /** Only the public half is there: it picks the key that ssh-agent holds. */
  | { readonly is: 'public'; readonly path: string; readonly publicKey: Buffer }
  | { readonly is: 'unusable'; readonly path: string; readonly why: string; readonly isMissing: boolean }

/** Reads a private key file; what is wrong with it is part of the answer, since another key may do. */
export async function readIdentityFile(path: string): Promise<IdentityFile> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const isMissing = code === 'ENOENT' || code === 'ENOTDIR'
    const publicKey = isMissing ? await readPublicKey(`${path}.pub`) : undefined
    if (publicKey) return { is: 'public', path, publicKey }
    return { is: 'unusable', path, why: isMissing ? 'no such file' : message, isMissing }
  }
  const key = await parsePrivateKey(text)
  if (!(key instanceof Error)) return { is: 'usable', path, key }
  if (isEncrypted(text)) return { is: 'encrypted', path, text, publicKey: await publicHalf(path, text) }
  const publicKey = publicKeyIn(text)
  if (publicKey) return { is: 'public', path, publicKey }
  return { is: 'unusable', path, why: key.message, isMissing: false }
}

/** Keys by their text and passphrase: one key logs in on every host. */
const parsedKeys = new Map<string, Promise<ParsedKey | Error>>()

/** Parses a private key, once in a run. Costs about 0.3 s with a passphrase: that is its purpose. */
export function parsePrivateKey(text: string, passphrase?: string): Promise<ParsedKey | Error> {
  const name = JSON.stringify([text, passphrase])
  const parsing = parsedKeys.get(name) ?? parse(text, passphrase)
  parsedKeys.set(name, parsing)
  return parsing
}

async function parse(text: string, passphrase: string | undefined): Promise<ParsedKey | Error> {
  const { default: ssh2 } = await import('ssh2')
  const parsed: unknown = ssh2.utils.parseKey(fromPkcs8(text, passphrase), passphrase)
  // ssh2 gives a list for files that may hold several keys.
  const key = (Array.isArray(parsed) ? parsed[0] : parsed) as ParsedKey | Error
  if (key instanceof Error) return key
  return key.isPrivateKey() ? key : new Error('it holds a public key')
}

/** OpenSSH reads PKCS#8 too, ssh2 does not: hand it the older form of the same key. */
function fromPkcs8(text: string, passphrase: string | undefined): string {
  if (!/BEGIN (ENCRYPTED )?PRIVATE KEY/.test(text)) return text
  try {
    const key = createPrivateKey(passphrase === undefined ? text : { key: text, passphrase })
    const type = key.asymmetricKeyType === 'ec' ? 'sec1' : 'pkcs1'
    return key.export({ type, format: 'pem' }).toString()
  } catch {
    return text
  }
}

function isEncrypted(text: string): boolean {
  if (/BEGIN ENCRYPTED PRIVATE KEY|^Proc-Type: 4,ENCRYPTED/m.test(text)) return true
  const key = openSshBody(text)
  return key !== undefined && key.cipher !== 'none'
}

async function publicHalf(path: string, text: string): Promise<Buffer | undefined> {
  return openSshBody(text)?.publicKey ?? readPublicKey(`${path}.pub`)
}

async function readPublicKey(path: string): Promise<Buffer | undefined> {
  return publicKeyIn(await readFile(path, 'utf8').catch(() => ''))
}

/** The key of a line such as `ssh-ed25519 AAAA… comment`. */
function publicKeyIn(text: string): Buffer | undefined {
  const [, encoded] = /^(?:ssh|ecdsa|sk)-\S+ (AAAA[\w+/=]+)/.exec(text.trim()) ?? []
  return encoded === undefined ? undefined : Buffer.from(encoded, 'base64')
}

/** An OpenSSH key file: `openssh-key-v1\0`, then cipher, kdf, kdf options, a count, and the public key in clear. */
function openSshBody(text: string): { cipher: string; publicKey: Buffer } | undefined {
  const [, encoded] = /-----BEGIN OPENSSH PRIVATE KEY-----([\s\S]+?)-----END/.exec(text) ?? []
  if (encoded === undefined) return undefined
  const body = Buffer.from(encoded, 'base64')
  let offset = 'openssh-key-v1\0'.length
  const next = (): Buffer => {
    const length = body.readUInt32BE(offset)
    offset += 4 + length
    return body.subarray(offset - length, offset)
  }
  try {
    const cipher = next().toString()
    next()
    next()
    offset += 4
    return { cipher, publicKey: Buffer.from(next()) }
  } catch {
    return undefined
  }
}
