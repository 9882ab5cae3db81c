// node:crypto computes here and nothing else: no randomness, no I/O. The salt is given by the caller.
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import { saslprep } from '@mongodb-js/saslprep'

/**
 * What the server keeps of a password, to be given to CREATE ROLE instead of the password, so that the password
 * stands neither in the statement nor in the server's log: `SCRAM-SHA-256$4096:<salt>$<StoredKey>:<ServerKey>`.
 * The salt should be 16 random bytes.
 * @see https://www.postgresql.org/docs/current/catalog-pg-authid.html, src/common/scram-common.c
 */
export function scramVerifier(password: string, salt: Uint8Array, iterations = 4096): string {
  const saltedPassword = pbkdf2Sync(preparePassword(password), salt, iterations, 32, 'sha256')
  const clientKey = hmac(saltedPassword, 'Client Key')
  const storedKey = createHash('sha256').update(clientKey).digest()
  const serverKey = hmac(saltedPassword, 'Server Key')
  const [saltText, storedText, serverText] = [salt, storedKey, serverKey].map(toBase64)
  return `SCRAM-SHA-256$${iterations}:${saltText}$${storedText}:${serverText}`
}

/**
 * The password as libpq and the server hash it: normalised by SASLprep, or just as it is where SASLprep refuses it,
 * e.g. with an emoji in it. Pure ASCII is never touched, control characters included.
 * @see src/common/saslprep.c, pg_saslprep
 */
export function preparePassword(password: string): string {
  if (/^[\0-\x7f]*$/.test(password) || refusedBeforeNormalising.test(password)) return password
  try {
    return saslprep(password) || password
  } catch {
    return password
  }
}

/**
 * PostgreSQL looks for what SASLprep forbids before it normalises, the library after. These are the characters where
 * that makes a difference: in Unicode 3.2 unassigned or forbidden, but with a normalised form that is neither.
 */
const refusedBeforeNormalising =
  /[\u0340\u0341\u03f9\u10fc\u1d00-\u1dff\u2090-\u209c\u213b\u213c\u2150-\u2152\u2189\u2c60-\u2d6f\u321d\u321e\u3244-\u3250\u327c-\u327e\u32cc-\u32cf\u32ff\u3377-\u337a\u33de\u33df\u33ff\ua640-\uabff\ufa2e\ufa2f\ufa6b-\ufaff\ufe10-\ufe19\ufe47\ufe48\u{10780}-\u{107ba}\u{1ccd6}-\u{1ccf9}\u{1d4c1}\u{1d6a4}\u{1d6a5}\u{1d7ca}\u{1d7cb}\u{1e030}-\u{1fbf9}]/u

const hmac = (key: Uint8Array, text: string) => createHmac('sha256', key).update(text).digest()
const toBase64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
