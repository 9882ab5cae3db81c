import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readdirSync, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { hasLeftover, holdServices, removeLeftover, writeAs } from './hold-services.mjs'

/** Thrown when something is missing that cannot, or may not, be installed. Its message says what to type. */
export class MissingRequirements extends Error {}

const say = (text) => console.error(text)

/**
 * What must be there, by what it is for. `programs` are looked for in PATH, the sbin folders and PostgreSQL's own folders;
 * the packages are named by package manager. What is `optional` is done without where the system does not have it.
 * `service`: what Debian's package enables.
 */
const postgresql = {
  programs: ['initdb', 'pg_ctl', 'postgres', 'pg_basebackup', 'psql'],
  packages: {
    apt: ['postgresql'],
    dnf: ['postgresql-server', 'postgresql', 'postgresql-contrib'],
    apk: ['postgresql', 'postgresql-client', 'postgresql-contrib'],
  },
  service: 'postgresql',
}
export const needs = {
  /** What the archive's bench compares with; without them the rest is measured. */
  'archive-bench': ['pgbackrest', 'rsync', 'zstd'].map((name) => ({ ...same([name], name), optional: true })),
  quickstart: [postgresql],
  tests: [
    postgresql,
    { ...same(['sshd'], 'openssh-server'), service: 'ssh' },
    {
      programs: ['ssh', 'ssh-keygen'],
      packages: { apt: ['openssh-client'], dnf: ['openssh-clients'], apk: ['openssh-client'] },
    },
    same(['sudo'], 'sudo'),
    {
      programs: ['ip', 'tc'],
      packages: { apt: ['iproute2'], dnf: ['iproute', 'iproute-tc'], apk: ['iproute2'] },
    },
    { ...same(['nft'], 'nftables'), service: 'nftables' },
    {
      programs: ['unshare', 'nsenter', 'setpriv', 'pivot_root', 'losetup', 'hostname'],
      packages: {
        apt: ['util-linux', 'mount', 'hostname'],
        dnf: ['util-linux', 'hostname'],
        apk: ['util-linux', 'setpriv', 'losetup'],
      },
    },
    { programs: ['ps'], packages: { apt: ['procps'], dnf: ['procps-ng'], apk: ['procps'] } },
    same(['mkfs.ext4'], 'e2fsprogs'),
    ...['zstd', 'lz4', 'busybox', 'fish', 'tcsh'].map((name) => ({ ...same([name], name), optional: true })),
  ],
}

function same(programs, name) {
  return {
    programs,
    packages: { apt: [name], dnf: [name], apk: [name === 'openssh-server' ? 'openssh' : name] },
  }
}

const managers = {
  apt: {
    program: 'apt-get',
    install: ['apt-get', 'install', '--yes', '--no-install-recommends'],
    update: ['apt-get', 'update'],
  },
  dnf: { program: 'dnf', install: ['dnf', 'install', '-y'] },
  yum: { program: 'yum', install: ['yum', 'install', '-y'], packagesOf: 'dnf' },
  apk: { program: 'apk', install: ['apk', 'add', '--no-cache'] },
}

/**
 * Makes sure that all is there that `purpose` ('quickstart', 'tests' or 'archive-bench') needs: says what it installs and by which command,
 * starts no service and no database of the distribution. Returns what it left on this machine: packages, a file.
 * @throws {MissingRequirements} with the command to type, when it may not install or that failed
 */
export function ensureRequirements(purpose) {
  if (hasLeftover()) removeLeftover(privilege())
  const missing = needs[purpose].filter((need) => missingPrograms(need).length > 0)
  if (missing.length === 0) return []
  const required = missing.filter((need) => !need.optional)
  const names = missing.flatMap(missingPrograms).join(', ')
  const manager = Object.keys(managers).find((name) => find(managers[name].program))
  if (!manager) {
    if (required.length === 0) return []
    throw new MissingRequirements(
      `missing: ${names}\nThis system has none of apt-get, dnf, yum and apk: install them, then run this again.`,
    )
  }
  const packages = packagesOf(missing, manager)
  const prefix = privilege()
  if (!prefix) {
    const line = [...managers[manager].install, ...packages].join(' ')
    const text = `missing: ${names}\nInstall it as root, then run this again:\n\n    ${line}\n`
    if (required.length > 0) throw new MissingRequirements(text)
    say(`${text}\nGoing on without: some tests will be skipped.`)
    return []
  }
  say(`missing: ${names}`)
  const { isDone, left } = install(manager, missing, prefix)
  const still = required.flatMap(missingPrograms)
  if (still.length > 0) throw new MissingRequirements(whyStillMissing(still, isDone))
  return left
}

export function whyStillMissing(programs, isInstalled) {
  return `${isInstalled ? 'installed, but still not found' : 'could not be installed, see above'}: ${programs.join(', ')}`
}

/** The folder with initdb, pg_ctl and postgres of the newest PostgreSQL on this machine, or undefined. */
export function findPostgresBinDir() {
  return postgresFolders().find((folder) => isProgram(join(folder, 'initdb')))
}

/** Whether that worked, and what is on this machine now that was not before. */
function install(manager, missing, prefix) {
  const { install: command, update } = managers[manager]
  if (update && !listsAreFresh()) run(prefix, update)
  const wanted = missing.filter((need) => !need.optional || isOffered(manager, packagesOf([need], manager)))
  const packages = packagesOf(wanted, manager)
  if (packages.length === 0) return { isDone: true, left: [] }
  const left = [...packages]
  if (manager === 'apt') left.push(...prepareDebian(wanted, prefix))
  const release = manager === 'apt' ? holdServices(prefix) : () => {}
  const attempt = () => run(prefix, [...command, ...packages])
  try {
    if (attempt()) return { isDone: true, left }
    if (!update) return { isDone: false, left }
    run(prefix, update) // the lists were older than they looked
    return { isDone: attempt(), left }
  } finally {
    release()
  }
}

/** Keeps Debian from making a database cluster of its own, for good. Says which services stay enabled for the next boot. */
function prepareDebian(missing, prefix) {
  const left = []
  if (missing.includes(postgresql) && !existsSync('/usr/bin/pg_createcluster')) {
    const file = '/etc/postgresql-common/createcluster.d/replctl.conf'
    say(`${file}: create_main_cluster = false (no database "main" is made)`)
    writeAs(prefix, file, 'create_main_cluster = false\n', '644')
    left.push(file)
  }
  const services = existsSync('/run/systemd/system') ? newServices(missing) : []
  if (services.length > 0) {
    say(
      `Nothing is started now; to keep new services from starting at the next boot: systemctl disable ${services.join(' ')}`,
    )
  }
  return left
}

/** Services that the missing packages bring along. */
export function newServices(missing, isThere = (name) => existsSync(`/lib/systemd/system/${name}.service`)) {
  return missing.flatMap(({ service }) => (service === undefined || isThere(service) ? [] : [service]))
}

function run(prefix, command) {
  const line = [...prefix, ...command]
  say(`$ ${line.join(' ')}`)
  const quiet = command[0] === 'apt-get' ? ['-q', '-o', 'Dpkg::Use-Pty=0'] : []
  const silent = [...prefix, ...environmentFor(command), command[0], ...quiet, ...command.slice(1)]
  const { status, signal } = spawnSync(silent[0], silent.slice(1), { stdio: ['ignore', 2, 2] })
  if (signal) throw new MissingRequirements(`the installation was interrupted (${signal})`)
  return status === 0
}

function environmentFor(command) {
  return command[0] === 'apt-get' ? ['env', 'DEBIAN_FRONTEND=noninteractive'] : []
}

/** [] for root, the words of sudo where it asks for no password, undefined if nothing may be installed. */
function privilege() {
  if (process.getuid?.() === 0) return []
  if (find('sudo') && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0)
    return ['sudo', '-n']
  return undefined
}

function packagesOf(missing, manager) {
  const key = managers[manager].packagesOf ?? manager
  return [...new Set(missing.flatMap(({ packages }) => packages[key]))]
}

/** Whether the distribution has all of these; only apt can be asked without a download. */
function isOffered(manager, packages) {
  if (manager !== 'apt') return packages.every(() => manager === 'apk')
  const shown = spawnSync('apt-cache', ['policy', ...packages], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  })
  const offers = shown.stdout.match(/^ {2}Candidate: (?!\(none\))/gm) ?? []
  if (offers.length === packages.length) return true
  say(`${packages.join(', ')}: not offered by this distribution; some tests will be skipped`)
  return false
}

/** Whether apt has package lists, not older than a day. */
function listsAreFresh() {
  const folder = '/var/lib/apt/lists'
  if (!existsSync(folder) || !readdirSync(folder).some((name) => name.includes('_Packages'))) return false
  return Date.now() - statSync(folder).mtimeMs < 24 * 3600 * 1000
}

function missingPrograms({ programs }) {
  return programs.filter((name) => !find(name))
}

function find(name) {
  const path = (process.env.PATH ?? '').split(delimiter)
  return [...path, '/usr/local/sbin', '/usr/sbin', '/sbin', ...postgresFolders()].find(
    (folder) => folder !== '' && isProgram(join(folder, name)),
  )
}

/** Where PostgreSQL's programs are on Debian, RHEL, Alpine and Homebrew; the newest version first. */
function postgresFolders() {
  const version = (folder) => Number(/(\d+)/.exec(folder.replace(/^\/opt\/homebrew/, ''))?.[1] ?? 0)
  const folders = [
    ...subfolders('/usr/lib/postgresql', 'bin'),
    ...subfolders('/usr', 'bin', /^pgsql-\d+$/),
    ...subfolders('/usr/libexec', '', /^postgresql\d+$/),
    ...subfolders('/opt/homebrew/opt', 'bin', /^postgresql@\d+$/),
    ...subfolders('/usr/local/opt', 'bin', /^postgresql@\d+$/),
  ]
  return folders.sort((one, other) => version(other) - version(one))
}

function subfolders(folder, below, pattern = /^\d+$/) {
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .filter((name) => pattern.test(name))
    .map((name) => join(folder, name, below))
}

function isProgram(path) {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}
