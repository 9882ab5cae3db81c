import { lstatSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { ReplctlError } from '../errors.ts'
import { resolveLocalPath } from './local-path.ts'

/** Environment variables. */
export type Environment = Readonly<Record<string, string | undefined>>

export interface FindInventoryOptions {
  /** Value of --config. */
  readonly flag?: string | undefined
  readonly env: Environment
  readonly cwd: string
  readonly home: string
}

/**
 * Absolute path of the inventory: --config, $REPLCTL_CONFIG, ./replctl.yaml, $XDG_CONFIG_HOME/replctl/replctl.yaml.
 * The first two are taken at their word; whether it can be read shows when it is.
 * @throws {ReplctlError} `inventory-missing` if none of them is there
 */
export function findInventoryPath({ flag, env, cwd, home }: FindInventoryOptions): string {
  const named = flag ?? (env.REPLCTL_CONFIG || undefined)
  if (named !== undefined) return resolveLocalPath(named, cwd, home)
  const places = [join(cwd, 'replctl.yaml'), join(configHome(env, home), 'replctl', 'replctl.yaml')]
  const found = places.find((place) => !isAbsent(place))
  if (found !== undefined) return found
  throw new ReplctlError('inventory-missing', 'no inventory found', {
    detail: `Neither --config nor $REPLCTL_CONFIG is given, and there is no ${places.join(' and no ')}.`,
    hint: missingInventoryHint,
  })
}

/**
 * Whether nothing is there. What cannot be seen (a link that leads nowhere, a folder that is closed to this user) is not passed
 * over: the next place may hold another cluster's inventory.
 */
function isAbsent(place: string): boolean {
  try {
    lstatSync(place)
    return false
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    return code === 'ENOENT' || code === 'ENOTDIR'
  }
}

export const missingInventoryHint =
  'Write one to start from with: replctl new CLUSTER --hosts HOST,… Or name an existing one with --config.'

/** The XDG specification has relative paths ignored. */
function configHome(env: Environment, home: string): string {
  const given = env.XDG_CONFIG_HOME
  return given && isAbsolute(given) ? given : join(home, '.config')
}
