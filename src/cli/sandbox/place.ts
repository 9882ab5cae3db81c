import { isAbsolute, join, resolve } from 'node:path'
import { ReplctlError } from '../../errors.ts'
import type { Call } from '../command-spec.ts'
import { runProgram } from './run-program.ts'

/** Where a sandbox is, and whose its instances are. */
export interface SandboxPlace {
  readonly dir: string
  /** Whether --dir left it to us. */
  readonly isDefault: boolean
  /** The instances' OS user: whoever calls; for root, whom PostgreSQL refuses, `postgres`. */
  readonly osUser: string
  /** Only for root: to whom the instances' folders are given. */
  readonly owner: { readonly uid: number; readonly gid: number } | null
}

/**
 * Finds a sandbox's place. Root's default is `/var/lib/replctl/sandbox`: every folder above it belongs to root (in the
 * postgres user's home that user could put another one in its place) and lets the postgres user pass (root's home does not).
 * @throws {ReplctlError} `usage`, `sandbox-unavailable`
 */
export async function findPlace(call: Call): Promise<SandboxPlace> {
  const { io, options } = call
  const given = options.dir as string | undefined
  const isRoot = io.uid === 0
  const state = io.env.XDG_STATE_HOME
  const stateHome = state && isAbsolute(state) ? state : join(io.home, '.local', 'state')
  const dir = resolve(io.cwd, given ?? join(isRoot ? '/var/lib' : stateHome, 'replctl', 'sandbox'))
  if (/[\0-\x1f\x7f]/.test(dir) || dir === '/') {
    throw new ReplctlError('usage', `--dir: ${JSON.stringify(dir)} cannot be the sandbox's folder`)
  }
  const osUser = isRoot ? 'postgres' : io.userName
  return { dir, isDefault: given === undefined, osUser, owner: isRoot ? await ownerOf(osUser) : null }
}

async function ownerOf(user: string): Promise<{ uid: number; gid: number }> {
  const [uid, gid] = await Promise.all([runProgram('id', ['-u', user]), runProgram('id', ['-g', user])])
  if (uid.status === 0 && gid.status === 0) return { uid: Number(uid.stdout), gid: Number(gid.stdout) }
  throw new ReplctlError('sandbox-unavailable', `there is no user "${user}" on this machine`, {
    detail: 'PostgreSQL refuses to run as root, so root runs the sandbox as that user.',
    hint: `Run the command as an ordinary user, or make the user: useradd --system --create-home --shell /bin/sh ${user}`,
  })
}
