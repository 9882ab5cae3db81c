import { createHash } from 'node:crypto'
import {
  closeSync,
  constants as flags,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  type Stats,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, isAbsolute, join } from 'node:path'
import { cachedDataVersionTag } from 'node:v8'
import { Script } from 'node:vm'

/** A bundle that was loaded, and what its functions compiled to. */
export interface LoadedBundle {
  /** What the bundle exports. */
  readonly exports: unknown
  /**
   * Keeps what has been compiled by now for later runs, once for each `kind` of run: another command calls other functions.
   * Never throws: a run that could not keep it was a run all the same.
   */
  keep(kind: string): void
}

export interface LoadBundle {
  /** Absolute path of a CommonJS bundle in ASCII without `import()`. */
  readonly file: string
  /** Where compiled code lies between two runs; null: nowhere. */
  readonly folder: string | null
  /** The only owner whose compiled code is run. */
  readonly uid: number
}

/**
 * Loads a bundle together with the code that V8 made of it in earlier runs: to compile it anew takes longer than most of what
 * replctl then does. Kept code belongs to one bundle (by its content) and one V8 with its flags; what is not whole, or what another
 * user could have written, counts as absent.
 * @throws whatever the bundle's own top level throws, and errors of the file system where the bundle is not there
 */
export function loadBundle({ file, folder, uid }: LoadBundle): LoadedBundle {
  const bytes = readFileSync(file)
  const bundle = digestOf(bytes)
  const runtime = `${process.version} ${process.arch} ${cachedDataVersionTag()}`
  const path =
    folder === null ? null : join(folder, `compiled-${digestOf(`${file} ${runtime}`).slice(0, 12)}`)
  const kept = path === null ? null : readKept(path, bundle, uid)
  const script = new Script(
    `(function(exports,require,module,__filename,__dirname){${bytes.toString('latin1')}\n})`,
    { filename: file, ...(kept === null ? {} : { cachedData: kept.code }) },
  )
  const module = { exports: {} as unknown }
  script.runInThisContext()(module.exports, createRequire(file), module, file, dirname(file))
  const kinds = script.cachedDataRejected === true ? [] : (kept?.kinds ?? [])
  return {
    exports: module.exports,
    keep(kind) {
      if (path === null || kinds.includes(kind)) return
      write(path, uid, () => {
        const code = script.createCachedData()
        // A long run has let go of functions that it did not call for a while: what others will call is worth more.
        if (kinds.length > 0 && code.length < (kept?.code.length ?? 0)) return null
        return { bundle, kinds: [...kinds, kind], code }
      })
    },
  }
}

/**
 * Where this process keeps compiled code: `$XDG_CACHE_HOME/replctl` or `~/.cache/replctl`; for root, whose $HOME may be that of
 * the user who called sudo, /var/cache/replctl. null where Node.js is told to keep none ($NODE_DISABLE_COMPILE_CACHE).
 */
export function compiledCodeFolder(env: NodeJS.ProcessEnv, uid: number): string | null {
  if (env.NODE_DISABLE_COMPILE_CACHE) return null
  if (uid === 0) return '/var/cache/replctl'
  const given = env.XDG_CACHE_HOME
  if (given && isAbsolute(given)) return join(given, 'replctl')
  return env.HOME && isAbsolute(env.HOME) ? join(env.HOME, '.cache', 'replctl') : null
}

/** Kept code: a line of JSON, then the code as V8 gave it. */
interface Kept {
  readonly bundle: string
  readonly kinds: readonly string[]
  readonly code: Buffer
}

function readKept(path: string, bundle: string, uid: number): Kept | null {
  try {
    const all = readOwn(path, uid)
    const end = all.indexOf(10)
    const header = JSON.parse(all.toString('latin1', 0, end)) as Omit<Kept, 'code'> & {
      readonly digest: string
    }
    const code = all.subarray(end + 1)
    if (header.bundle !== bundle || header.digest !== digestOf(code)) return null
    return { bundle, kinds: header.kinds, code }
  } catch {
    return null
  }
}

/** A file that nobody but `uid` may write, in a folder of the same kind. What was opened is what is looked at. */
function readOwn(path: string, uid: number): Buffer {
  requireOwn(lstatSync(dirname(path)), uid)
  // Never waits for somebody who might write into a pipe of that name.
  const file = openSync(path, flags.O_RDONLY | flags.O_NOFOLLOW | flags.O_NONBLOCK)
  try {
    requireOwn(fstatSync(file), uid)
    return readFileSync(file)
  } finally {
    closeSync(file)
  }
}

function requireOwn({ uid, mode }: Stats, wanted: number): void {
  if (uid !== wanted || (mode & 0o022) !== 0) throw new Error('it may be somebody else’s')
}

/**
 * Whole or not at all: other runs read it meanwhile. Of what two write at once, or a killed one left, the digest tells. The code is
 * only made where it can be written.
 */
function write(path: string, uid: number, make: () => Kept | null): void {
  const temporary = `${path}.new`
  let file: number | undefined
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
    requireOwn(lstatSync(dirname(path)), uid)
    remove(temporary)
    file = openSync(temporary, flags.O_WRONLY | flags.O_CREAT | flags.O_EXCL, 0o600)
    const kept = make()
    if (kept === null) {
      remove(temporary)
      return
    }
    const { bundle, kinds, code } = kept
    const header = JSON.stringify({ bundle, kinds, digest: digestOf(code) })
    writeFileSync(file, Buffer.concat([Buffer.from(`${header}\n`, 'latin1'), code]))
    renameSync(temporary, path)
  } catch {
    if (file !== undefined) remove(temporary)
  } finally {
    if (file !== undefined) closeSync(file)
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // It is not there, or nothing can be written there at all.
  }
}

function digestOf(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex')
}
