import { randomBytes } from 'node:crypto'
import { chmod, chown, link, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ReplctlError } from '../../errors.ts'
import { parsePassfile, passfileLine } from '../../postgres/passfile.ts'
import { makeFolders } from './make-folders.ts'
import type { SandboxPlace } from './place.ts'

/** The role that the sandbox's URLs log in as; no superuser. */
export const sandboxRole = 'sandbox'
/** Nothing is deleted from a folder without this file: it says that replctl made the folder. */
const markName = 'sandbox.json'
/** Longest path of a unix socket, on macOS and BSD; Linux allows four more. */
const longestSocketPath = 103

export const inventoryOf = (place: SandboxPlace): string => join(place.dir, 'replctl.yaml')
export const passfileOf = (place: SandboxPlace): string => join(place.dir, 'pgpass')
export const nodeFolder = (place: SandboxPlace, node: string): string => join(place.dir, node)

/** What replctl wrote when it made the folder. */
export interface SandboxMark {
  readonly made_by: 'replctl sandbox up'
  /** Where the unix sockets are: in the folder, or, where that path would be too long, a folder of its own in /tmp. */
  readonly socket_dir: string
}

/** The mark of a sandbox's folder; null where there is no sandbox. @throws {ReplctlError} `sandbox-unavailable` */
export async function readMark(place: SandboxPlace): Promise<SandboxMark | null> {
  return await orUnusable(place, async () => {
    const entries = await readdir(place.dir).catch(nullIfMissing)
    const isEmpty = entries?.every((name) => name.startsWith(`${markName}.new-`)) ?? true
    if (entries === null || isEmpty) return null
    if (!entries.includes(markName)) throw notASandbox(place)
    return JSON.parse(await readFile(join(place.dir, markName), 'utf8')) as SandboxMark
  })
}

/** Makes the folder, or finds it. Others may pass through root's (the postgres user has to), nobody through a user's own. */
export async function ensureFolder(place: SandboxPlace): Promise<SandboxMark> {
  const { dir, owner } = place
  return await orUnusable(place, async () => {
    await makeFolders(dir, owner !== null)
    if ((await readMark(place)) === null) {
      const mark: SandboxMark = { made_by: 'replctl sandbox up', socket_dir: chooseSocketDir(dir) }
      await chmod(dir, owner === null ? 0o700 : 0o755)
      await createFile(join(dir, markName), `${JSON.stringify(mark)}\n`, 0o644)
    }
    const mark = (await readMark(place))!
    await ensureOwned(mark.socket_dir, place)
    return mark
  })
}

async function orUnusable<T>({ dir }: SandboxPlace, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (thrown instanceof ReplctlError || code === undefined) throw thrown
    throw new ReplctlError('sandbox-unavailable', `cannot use ${dir} for a sandbox`, {
      detail: `The system says ${code}.`,
      hint: 'Name another folder with --dir.',
      cause: thrown,
    })
  }
}

/** A folder that belongs to the instances' user, and to nobody else. */
export async function ensureOwned(path: string, { owner }: SandboxPlace): Promise<void> {
  const isNew = await mkdir(path, { mode: 0o700 }).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false
      throw error
    },
  )
  if (isNew && owner !== null) await chown(path, owner.uid, owner.gid)
}

/** The password of the sandbox's role, in a passfile for libpq that is made at the first call. */
export async function ensurePassword(place: SandboxPlace): Promise<string> {
  const path = passfileOf(place)
  const password = randomBytes(18).toString('base64url')
  const line = passfileLine({ host: '127.0.0.1', port: '*', database: '*', user: sandboxRole, password })
  await createFile(path, `${line}\n`, 0o600)
  return await readPassword(place)
}

/** Empty where the sandbox has none yet. */
export async function readPassword(place: SandboxPlace): Promise<string> {
  const text = await readFile(passfileOf(place), 'utf8').catch(nullIfMissing)
  return parsePassfile(text ?? '')[0]?.password ?? ''
}

/** How to reach a node: the password is read by libpq from the passfile that the URL names. */
export function urlOf(place: SandboxPlace, port: number): string {
  const passfile = encodeURIComponent(passfileOf(place)).replaceAll('%2F', '/').replaceAll("'", '%27')
  return `postgresql://${sandboxRole}@127.0.0.1:${port}/postgres?passfile=${passfile}`
}

/** Makes a file as a whole; of two that come at the same time the first one wins. */
export async function createFile(path: string, text: string, mode: number): Promise<void> {
  const temporary = `${path}.new-${randomBytes(4).toString('hex')}`
  await writeFile(temporary, text, { flag: 'wx', mode })
  try {
    await link(temporary, path)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
  } finally {
    await rm(temporary, { force: true })
  }
}

export function nullIfMissing(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT') return null
  throw error
}

/** The error where there is no sandbox. */
export function noSandbox({ dir }: SandboxPlace): ReplctlError {
  return new ReplctlError('sandbox-unavailable', `there is no sandbox in ${dir}`, {
    hint: 'Start one: replctl sandbox up',
  })
}

function notASandbox({ dir }: SandboxPlace): ReplctlError {
  return new ReplctlError('sandbox-unavailable', `${dir} is not a sandbox`, {
    detail: 'It holds files that "replctl sandbox up" did not make.',
    hint: `It is left alone. Name another folder with --dir, e.g. ${join(dirname(dir), 'sandbox')}.`,
  })
}

function chooseSocketDir(dir: string): string {
  const inside = join(dir, 'sockets')
  const isShort = Buffer.byteLength(join(inside, '.s.PGSQL.65535')) <= longestSocketPath
  // A comma or a quote means something in unix_socket_directories.
  return isShort && /^[\w@%+=:./-]+$/.test(inside) ? inside : `/tmp/replctl-${randomBytes(5).toString('hex')}`
}
