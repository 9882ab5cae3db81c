import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe } from 'vitest'
import { hostsAvailable } from './hosts-available.ts'
import { runChecked } from './run-process.ts'
import type { TestHosts } from './test-hosts.ts'

/** Where PostgreSQL 17 is installed on a test host. */
export const postgres17BinDir = '/usr/lib/postgresql/17/bin'

/** The C library of that Debian is newer than the machine's: the programs run with their own, from this folder. */
const runtime = '/usr/lib/postgresql/17/runtime'
const loader = 'ld-linux-x86-64.so.2'
const suite = 'trixie'
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** Not needed by any program of PostgreSQL. */
const unwanted =
  /^(perl|libperl|debconf|sysvinit|adduser|ssl-cert|locales|gcc-|postgresql-common|dpkg|passwd)/

/**
 * Installs a real PostgreSQL 17 with all its programs on a host.
 * @throws {Error} where it cannot be had, see {@link whyNoPostgres17}
 */
export async function installPostgres17(hosts: TestHosts, host: string): Promise<void> {
  const input = await readFile(await fetchPostgres17())
  await hosts.exec(host, ['tar', '-x', '-C', '/', '-f', '-'], { input })
}

/** `describe` for tests that need hosts with PostgreSQL 17. Where there are none their name says why. */
export async function describeOnPostgres17(name: string, tests: () => void): Promise<void> {
  const available = hostsAvailable()
  const reason =
    available.kind === 'namespaces'
      ? await whyNoPostgres17()
      : `it needs test hosts in namespaces: ${available.reason}`
  if (reason === undefined) describe(name, tests)
  else describe.skip(`${name} [${reason}]`, tests)
}

/** Why there is no PostgreSQL 17 to be had here, in one line; undefined: there is. */
export async function whyNoPostgres17(): Promise<string | undefined> {
  try {
    await fetchPostgres17()
    return undefined
  } catch (error) {
    return `PostgreSQL 17 of Debian ${suite} cannot be had: ${String(error).split('\n')[0]}`
  }
}

let fetched: Promise<string> | undefined

/** Returns the path of a tar file to be unpacked in `/`: Debian's packages from its own mirror, kept for later runs. */
export function fetchPostgres17(): Promise<string> {
  fetched ??= fetchOnce()
  return fetched
}

async function fetchOnce(): Promise<string> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(`these packages are not for ${process.platform} on ${process.arch}`)
  }
  const cache = fileURLToPath(new URL('../../node_modules/.cache/replctl', import.meta.url))
  const tarFile = join(cache, 'postgres-17-1.tar')
  if (await readFile(`${tarFile}.complete`).then(Boolean, () => false)) return tarFile
  await mkdir(cache, { recursive: true })
  const work = await mkdtemp(join(cache, 'postgres-17-'))
  try {
    const unpacked = await unpackPackages(work)
    const root = join(work, 'root')
    await arrange(unpacked, root)
    const draft = `${tarFile}.${process.pid}`
    await runChecked('tar', ['-c', '--owner=0', '--group=0', '-f', draft, '-C', root, 'usr'])
    await rename(draft, tarFile)
    await writeFile(`${tarFile}.complete`, `${suite}\n`)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return tarFile
}

/** Has apt work in a folder of its own: nothing of this machine's packages is looked at or changed. */
async function unpackPackages(work: string): Promise<string> {
  const apt = join(work, 'apt')
  await mkdir(join(apt, 'lists/partial'), { recursive: true })
  await mkdir(join(apt, 'cache/archives/partial'), { recursive: true })
  await writeFile(join(apt, 'status'), '')
  await writeFile(
    join(apt, 'sources.list'),
    `deb [signed-by=${keyring}] ${await debianMirror()} ${suite} main\n`,
  )
  const settings = [
    `Dir::Etc::SourceList=${apt}/sources.list`,
    'Dir::Etc::SourceParts=-',
    `Dir::State::Lists=${apt}/lists`,
    `Dir::State::status=${apt}/status`,
    `Dir::Cache=${apt}/cache`,
    'APT::Sandbox::User=root',
    'Debug::NoLocking=1',
    'Acquire::Languages=none',
    'Acquire::Retries=1',
    'Acquire::http::Timeout=30',
  ].flatMap((setting) => ['-o', setting])
  await runChecked('apt-get', ['-q', ...settings, 'update', '--error-on=any'])
  const install = ['install', '--yes', '--download-only', '--no-install-recommends', 'postgresql-17']
  await runChecked('apt-get', ['-q', ...settings, ...install])
  const unpacked = join(work, 'unpacked')
  await mkdir(unpacked)
  const archives = join(apt, 'cache/archives')
  for (const name of await readdir(archives)) {
    if (!name.endsWith('.deb') || unwanted.test(name)) continue
    await runChecked('dpkg-deb', ['-x', join(archives, name), unpacked])
  }
  return unpacked
}

/** Where this machine gets its own packages from. */
async function debianMirror(): Promise<string> {
  const format = ['--format', '$(ORIGIN) $(SITE)', 'Created-By: Packages']
  const sites = await runChecked('apt-get', ['indextargets', ...format])
  const site = /^Debian (\S+\/debian)$/m.exec(sites)?.[1]
  if (site === undefined) throw new Error('this machine has no mirror of Debian')
  return site
}

/** Programs in `programs`, started by small scripts in `bin` with the loader and the libraries of `runtime`. */
async function arrange(unpacked: string, root: string): Promise<void> {
  const from = (path: string) => join(unpacked, path)
  const to = (path: string) => join(root, path)
  const home = 'usr/lib/postgresql/17'
  for (const folder of [`${home}/bin`, runtime.slice(1), 'usr/share/postgresql']) {
    await mkdir(to(folder), { recursive: true })
  }
  await cp(from(`${home}/lib`), to(`${home}/lib`), { recursive: true, verbatimSymlinks: true })
  await cp(from(`${home}/bin`), to(`${home}/programs`), { recursive: true })
  const share = 'usr/share/postgresql/17'
  await cp(from(share), to(share), { recursive: true, verbatimSymlinks: true })
  const libraries = from('usr/lib/x86_64-linux-gnu')
  const programs = await readdir(to(`${home}/programs`))
  const needed = new Set([join(libraries, loader)])
  for (const name of programs) {
    const listed = await runChecked(join(libraries, loader), [
      ...['--library-path', libraries, '--list', to(`${home}/programs/${name}`)],
    ]).catch(() => '')
    for (const [path] of listed.matchAll(/\/\S+\.so[.\d]*(?= \(0x)/g)) needed.add(path)
    const script = `#!/bin/sh
exec ${runtime}/${loader} --library-path ${runtime} --argv0 "$0" /${home}/programs/${name} "$@"
`
    await writeFile(to(`${home}/bin/${name}`), script)
    await chmod(to(`${home}/bin/${name}`), 0o755)
  }
  for (const path of needed) {
    // What the machine itself lent is of its own C library, and would not fit.
    if (!path.startsWith(unpacked)) throw new Error(`the packages lack ${path}`)
    await cp(path, join(root, runtime, basename(path)), { dereference: true })
  }
}
