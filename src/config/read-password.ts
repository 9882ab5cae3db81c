import { readFile } from 'node:fs/promises'
import { Secret } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import type { InventoryProblem } from './inventory-problem.ts'

/**
 * Reads a file that holds a password. One newline at its end is cut, for editors add it.
 * What is wrong is returned as a problem of `replication.password_file`, never with the content.
 */
export async function readPasswordFile(path: string): Promise<Secret | InventoryProblem> {
  const common = { path: ['replication', 'password_file'], at: 'value' } as const
  let bytes: Buffer
  try {
    bytes = await readFile(path)
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (code !== 'ENOENT') return { ...common, message: `could not read ${path} (${code})` }
    return {
      ...common,
      message: `no file ${path}`,
      hint: 'Write the password into it, mode 0600, or remove the key.',
    }
  }
  const password = decode(bytes)?.replace(/\r?\n$/, '')
  if (password === undefined) return { ...common, message: `${path} is not UTF-8 text` }
  const fault = findFault(password)
  return fault === undefined
    ? new Secret(password)
    : { ...common, message: `the password in ${path} ${fault}` }
}

/**
 * Takes the password from the environment, as it is.
 * @throws {ReplctlError} `password-invalid` if it is empty (a secret that a pipeline failed to fill in) or unusable
 */
export function passwordFromEnvironment(value: string): Secret {
  const fault = findFault(value)
  if (fault === undefined) return new Secret(value)
  throw new ReplctlError('password-invalid', `the password in $REPLCTL_REPLICATION_PASSWORD ${fault}`, {
    hint: 'Set the variable to the password, or unset it.',
  })
}

/** A passfile has one line for a password, and an empty one would be taken for "no password". */
function findFault(password: string): string | undefined {
  if (password === '') return 'is empty'
  return /[\n\r\0]/.test(password) ? 'has more than one line' : undefined
}

function decode(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return undefined
  }
}
