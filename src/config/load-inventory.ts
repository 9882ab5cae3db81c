import { readlink } from 'node:fs/promises'
import { isAbsolute, relative, resolve } from 'node:path'
import type { Secret } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { checkInventory } from './check-inventory.ts'
import { describeIssues } from './describe-issue.ts'
import { type Environment, missingInventoryHint } from './find-inventory.ts'
import type { Inventory } from './inventory.ts'
import { type InventoryProblem, inventoryInvalid, type LocatedProblem } from './inventory-problem.ts'
import { resolveLocalPath } from './local-path.ts'
import { readBounded } from './read-bounded.ts'
import { passwordFromEnvironment, readPasswordFile } from './read-password.ts'
import { resolveInventory } from './resolve-inventory.ts'
import { inventorySchema } from './schema.ts'
import { readYaml, type YamlSource } from './yaml-source.ts'

export { findInventoryPath } from './find-inventory.ts'

export interface LoadInventoryOptions {
  readonly env: Environment
  readonly home: string
  /** Where the operator is: a file below it is named relative to it in errors. Default: the path as given. */
  readonly cwd?: string | undefined
  /** Ends the wait for what is written into a pipe. */
  readonly signal?: AbortSignal | undefined
}

/**
 * Reads, checks and defaults the inventory.
 * @throws {ReplctlError} `inventory-missing`; `inventory-invalid` with all that is wrong in it, each with file, line
 * and column; `password-invalid` if $REPLCTL_REPLICATION_PASSWORD is unusable; `interrupted`
 */
export async function loadInventory(
  path: string,
  { env, home, cwd, signal }: LoadInventoryOptions,
): Promise<Inventory> {
  const file = cwd === undefined ? path : displayPath(path, cwd)
  const fullPath = cwd === undefined ? resolve(path) : resolve(cwd, path)
  const source = readYaml(await readText(fullPath, file, signal))
  const { value } = source
  if (value === undefined) throw inventoryInvalid(file, locate(source, source.problems))

  const parsed = inventorySchema.safeParse(value)
  const problems = [
    ...source.problems,
    ...(parsed.success ? [] : describeIssues(parsed.error.issues, value, (path) => source.sourceOf(path))),
    ...checkInventory(value),
  ]
  if (!parsed.success || problems.length > 0) throw inventoryInvalid(file, locate(source, problems))

  const password = await findPassword(
    parsed.data.replication?.password_file,
    resolve(fullPath, '..'),
    env,
    home,
  )
  if (password && 'message' in password) throw inventoryInvalid(file, locate(source, [password]))
  return resolveInventory(parsed.data, {
    path: fullPath,
    home,
    nodeNames: source.keysOf(['nodes']),
    password,
  })
}

/** The environment goes first, so that a pipeline needs no file. */
async function findPassword(
  passwordFile: string | undefined,
  folder: string,
  env: Environment,
  home: string,
): Promise<Secret | InventoryProblem | undefined> {
  const given = env.REPLCTL_REPLICATION_PASSWORD
  if (given !== undefined) return passwordFromEnvironment(given)
  return passwordFile === undefined
    ? undefined
    : readPasswordFile(resolveLocalPath(passwordFile, folder, home))
}

async function readText(path: string, file: string, signal: AbortSignal | undefined): Promise<string> {
  let bytes: Buffer
  try {
    bytes = await readBounded(path, file, signal)
  } catch (thrown) {
    if (thrown instanceof ReplctlError) throw thrown
    const { code } = thrown as NodeJS.ErrnoException
    const target = code === 'ENOENT' ? await readlink(path).catch(() => null) : null
    if (target !== null) {
      throw new ReplctlError('inventory-invalid', `could not read ${file}`, {
        detail: `It is a link to ${target}, which is not there.`,
        hint: 'Mend or remove the link, or name another inventory with --config.',
        cause: thrown,
      })
    }
    if (code === 'ENOENT') {
      throw new ReplctlError('inventory-missing', `no inventory ${file}`, {
        hint: missingInventoryHint,
        cause: thrown,
      })
    }
    const detail = code === 'EISDIR' ? 'It is a directory.' : `The system says ${code}.`
    const hint = 'Name an inventory that can be read with --config, or go to another folder.'
    throw new ReplctlError('inventory-invalid', `could not read ${file}`, { detail, hint, cause: thrown })
  }
  try {
    // It also drops a byte order mark, which would shift the columns of the first line.
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (thrown) {
    throw new ReplctlError('inventory-invalid', `${file} is not UTF-8 text`, { cause: thrown })
  }
}

function locate(source: YamlSource, problems: readonly InventoryProblem[]): LocatedProblem[] {
  return problems.map(({ at, path, ...problem }) => ({
    ...problem,
    path,
    position: positionOf(source, path, at),
  }))
}

function positionOf(source: YamlSource, path: InventoryProblem['path'], at: InventoryProblem['at']) {
  if (at === 'key' || at === 'value') return source.positionOf(path, at)
  return 'key' in at ? source.positionOf(at.key, 'key') : at
}

function displayPath(path: string, cwd: string): string {
  const fromHere = relative(cwd, resolve(cwd, path))
  return fromHere === '' || fromHere.startsWith('..') || isAbsolute(fromHere) ? path : fromHere
}
