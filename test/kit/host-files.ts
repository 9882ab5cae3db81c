import { chmod, chown, mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** A user of a test host. `uid` and `gid` are numbers inside and outside alike. */
export interface HostUser {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
}

export interface HostFiles {
  /** Upper layer of the host's root: what stands here hides the machine's file of the same path. */
  readonly upper: string
  /** Folders bound over the host's root, fresh and on disk. */
  readonly disk: string
  readonly name: string
  /** All hosts of the run with their addresses. */
  readonly addresses: ReadonlyMap<string, string>
  readonly authorizedKey: string
  /** Lines put in front of sshd_config: the first value of an option is the one that counts. */
  readonly sshdConfig: string
}

/** Folders that start empty on each host and lie on disk, so that they can hold gigabytes: path, owner, mode. */
export const freshPlaces = [
  { path: '/var/lib/postgresql', owner: 'postgres', mode: 0o755 },
  { path: '/etc/postgresql', owner: 'postgres', mode: 0o755 },
  { path: '/var/log/postgresql', owner: 'postgres', mode: 0o775 },
  { path: '/data', owner: 'postgres', mode: 0o755 },
  { path: '/srv', owner: 'root', mode: 0o755 },
  { path: '/etc/sudoers.d', owner: 'root', mode: 0o755 },
  { path: '/root', owner: 'root', mode: 0o700 },
  { path: '/home', owner: 'root', mode: 0o755 },
] as const

const adminUid = 4321

/** Writes what makes a host itself: users, keys, names, and fresh folders. Needs to be called once, before the first boot. */
export async function writeHostFiles(host: HostFiles): Promise<ReadonlyMap<string, HostUser>> {
  const users = await writeUsers(host.upper)
  for (const { path, owner, mode } of freshPlaces) await makeFolder(host.disk + path, users.get(owner)!, mode)
  for (const user of users.values()) {
    const home = host.disk + user.home
    await makeFolder(home, user, user.name === 'root' ? 0o700 : 0o755)
    await makeFolder(join(home, '.ssh'), user, 0o700)
    await writeOwned(join(home, '.ssh/authorized_keys'), `${host.authorizedKey}\n`, user, 0o600)
  }
  const root = users.get('root')!
  const names = [...host.addresses].map(([name, address]) => `${address} ${name}\n`).join('')
  await writeOwned(join(host.disk, 'etc/sudoers.d/admin'), 'admin ALL=(ALL:ALL) NOPASSWD: ALL\n', root, 0o440)
  const files: readonly (readonly [path: string, text: string, mode?: number])[] = [
    ['etc/hostname', `${host.name}\n`],
    ['etc/hosts', `127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n${names}`],
    ['etc/resolv.conf', ''],
    ['etc/machine-id', `${Buffer.from(host.name.padEnd(16).slice(0, 16)).toString('hex')}\n`],
    ['etc/sudoers', sudoers, 0o440],
    ['etc/ssh/sshd_config', host.sshdConfig + sshdConfig],
  ]
  for (const [path, text, mode] of files) await writeOwned(join(host.upper, path), text, root, mode ?? 0o644)
  return users
}

const sudoers = `Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
@includedir /etc/sudoers.d
`

const sshdConfig = `Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
HostKey /etc/ssh/ssh_host_ecdsa_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
`

/** The machine's accounts, no password valid, `postgres` as Debian makes it but not locked, and an `admin`. */
async function writeUsers(upper: string): Promise<ReadonlyMap<string, HostUser>> {
  const foreign = (line: string) => line !== '' && !/^(admin|postgres):/.test(line)
  const [passwd, group] = await Promise.all(
    ['/etc/passwd', '/etc/group'].map(async (path) => (await readFile(path, 'utf8')).split('\n')),
  )
  const postgres = passwd!.find((line) => line.startsWith('postgres:'))?.split(':')
  if (!postgres) throw new Error('this machine has no user "postgres": is PostgreSQL installed?')
  const [uid, gid] = [Number(postgres[2]), Number(postgres[3])]
  const users = [
    { name: 'root', uid: 0, gid: 0, home: '/root' },
    { name: 'postgres', uid, gid, home: '/var/lib/postgresql' },
    { name: 'admin', uid: adminUid, gid: adminUid, home: '/home/admin' },
  ]
  const accounts = [
    ...passwd!.filter(foreign),
    `postgres:x:${uid}:${gid}:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash`,
    `admin:x:${adminUid}:${adminUid}::/home/admin:/bin/bash`,
  ]
  const groups = [...group!.filter(foreign), `postgres:x:${gid}:`, `admin:x:${adminUid}:`]
  const passwords = accounts.map((line) => `${line.split(':')[0]}:*:19000:0:99999:7:::`)
  const root = users[0]!
  await writeOwned(join(upper, 'etc/passwd'), lines(accounts), root, 0o644)
  await writeOwned(join(upper, 'etc/group'), lines(groups), root, 0o644)
  await writeOwned(join(upper, 'etc/shadow'), lines(passwords), root, 0o600)
  return new Map(users.map((user) => [user.name, user]))
}

function lines(all: readonly string[]): string {
  return `${all.join('\n')}\n`
}

async function makeFolder(path: string, owner: HostUser, mode: number): Promise<void> {
  await mkdir(path, { recursive: true })
  await chmod(path, mode) // whatever the umask
  await chown(path, owner.uid, owner.gid)
}

async function writeOwned(path: string, text: string, owner: HostUser, mode: number): Promise<void> {
  if (await mkdir(dirname(path), { recursive: true })) await chmod(dirname(path), 0o755)
  await writeFile(path, text)
  await chmod(path, mode)
  await chown(path, owner.uid, owner.gid)
}
