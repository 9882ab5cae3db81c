import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { loadTemplate } from '../../src/config/load-template.ts'
import {
  type ArchiveCompression,
  archiveFiles,
  archiveKnownHosts,
  authorizedKeysLine,
  ensureAuthorizedKeysLine,
  renderArchiveFetch,
  renderArchivePush,
  renderArchiveReceive,
} from '../../src/postgres/archive.ts'
import { awaitCondition } from './await-condition.ts'

/** The shells a host may have as /bin/sh, with the tools that go with them. */
export const shells = ['dash', 'bash', 'busybox'] as const
export type Shell = (typeof shells)[number]

export interface Finished {
  readonly status: number | null
  readonly signal: string | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  readonly stdin?: string | Uint8Array
  readonly timeoutMs?: number
}

export interface NodeOptions {
  readonly name?: string
  readonly shell?: Shell
  readonly systemIdentifier: string
  readonly compression?: ArchiveCompression
  /** Changes the rendered scripts, e.g. to take a program away. */
  readonly edit?: (script: string) => string
  readonly port?: number
  /** A folder of this name lies around state directory and receiver. */
  readonly place?: string
  /** `archive.dir`, if not the usual one. */
  readonly dir?: string
}

/**
 * An archive host (sshd on the loopback with keys and configuration of its own) and nodes that push to it, all in
 * one temporary directory and as one unprivileged user: `postgres` when the tests run as root.
 */
export class ArchiveKit {
  readonly root: string
  readonly archiveDir: string
  readonly port: number
  readonly user: string
  readonly #ids: { readonly uid?: number; readonly gid?: number }
  readonly #home: string
  readonly #templates: Readonly<Record<'push' | 'fetch' | 'receive', string>>
  #sshd: ChildProcess | undefined

  static async start(): Promise<ArchiveKit> {
    const [push, fetch, receive] = await Promise.all(
      ['push', 'fetch', 'receive'].map((name) => loadTemplate(`archive/archive-${name}.sh`)),
    )
    const kit = new ArchiveKit({ push: push!, fetch: fetch!, receive: receive! }, await freePort())
    await kit.startSshd()
    return kit
  }

  private constructor(templates: Record<'push' | 'fetch' | 'receive', string>, port: number) {
    this.#templates = templates
    this.port = port
    const account = unprivilegedAccount()
    this.user = account.name
    this.#ids = account.switch ? { uid: account.uid, gid: account.gid } : {}
    this.root = mkdtempSync(join(tmpdir(), 'replctl-archive-'))
    this.own(this.root)
    this.#home = this.directory('home')
    this.archiveDir = this.directory('archive')
    this.directory('busybox')
    for (const applet of busyboxApplets) symlinkSync('/bin/busybox', join(this.root, 'busybox', applet))
    this.write('authorized_keys', '')
  }

  /** Makes a directory that belongs to the user. */
  directory(...path: readonly string[]): string {
    let directory = this.root
    for (const part of path.flatMap((word) => word.split('/').filter(Boolean))) {
      directory = join(directory, part)
      if (existsSync(directory)) continue
      mkdirSync(directory)
      this.own(directory)
    }
    return directory
  }

  /** Writes a file that belongs to the user. */
  write(path: string, content: string | Uint8Array, mode = 0o600): string {
    const file = path.startsWith('/') ? path : join(this.root, path)
    writeFileSync(file, content)
    this.own(file)
    chmodSync(file, mode)
    return file
  }

  own(path: string): void {
    if (this.#ids.uid !== undefined) chownSync(path, this.#ids.uid, this.#ids.gid!)
  }

  async startSshd(): Promise<void> {
    if (!existsSync(join(this.root, 'host_key'))) await this.generateKey(join(this.root, 'host_key'))
    this.write(
      'sshd_config',
      `Port ${this.port}
ListenAddress 127.0.0.1
HostKey ${this.root}/host_key
PidFile none
AuthorizedKeysFile ${this.root}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
AllowTcpForwarding yes
Subsystem sftp internal-sftp
`,
    )
    this.#sshd = spawn(
      '/usr/sbin/sshd',
      ['-D', '-E', join(this.root, 'sshd.log'), '-f', join(this.root, 'sshd_config')],
      {
        ...this.#ids,
        stdio: 'ignore',
      },
    )
    await awaitCondition('sshd listens', () => isListening(this.port))
  }

  async stopSshd(): Promise<void> {
    const sshd = this.#sshd
    this.#sshd = undefined
    if (!sshd?.pid || sshd.exitCode !== null) return
    const gone = new Promise((resolve) => sshd.once('exit', resolve))
    const sessions = childrenOf(sshd.pid)
    sshd.kill('SIGTERM')
    await gone
    for (const pid of sessions) killQuietly(pid)
  }

  async stop(): Promise<void> {
    for (const pid of this.connections()) killQuietly(pid)
    await this.stopSshd()
    rmSync(this.root, { recursive: true, force: true, maxRetries: 5 })
  }

  /** Process ids of the warm connections whose socket is below this directory. */
  connections(directory = this.root): readonly number[] {
    return processIds().filter((pid) => {
      try {
        const title = readFileSync(`/proc/${pid}/cmdline`, 'latin1')
        return (
          /^ssh: ssh-[0-9a-f]{8} \[mux\]/.test(title) &&
          readlinkSync(`/proc/${pid}/cwd`).startsWith(directory)
        )
      } catch {
        return false
      }
    })
  }

  /** A node: state directory with scripts, key and known_hosts, and its line in authorized_keys. */
  async addNode({
    name = 'pg1',
    shell = 'dash',
    systemIdentifier,
    compression = 'auto',
    edit = (script) => script,
    port = this.port,
    place = '',
    dir = this.archiveDir,
  }: NodeOptions): Promise<ArchiveNode> {
    const key = `${name}-${shell}-${compression}`
    const stateDirectory = this.directory(key, place, '.replctl', 'shop')
    const receiverPath = join(this.directory(`receive-${shell}`, place), archiveFiles.receive)
    const values = {
      cluster: 'shop',
      stateDirectory,
      systemIdentifier,
      host: '127.0.0.1',
      port,
      user: this.user,
      dir,
      connectTimeoutMs: 5000,
      compression,
    }
    const script = (text: string) => edit(this.#forShell(shell, text))
    this.write(
      join(stateDirectory, 'archive-push'),
      script(renderArchivePush(this.#templates.push, values)),
      0o700,
    )
    this.write(
      join(stateDirectory, 'archive-fetch'),
      script(renderArchiveFetch(this.#templates.fetch, values)),
      0o700,
    )
    this.write(
      receiverPath,
      script(renderArchiveReceive(this.#templates.receive, { cluster: 'shop' })),
      0o700,
    )
    this.directory('archive', systemIdentifier, 'wal')
    const keyFile = join(stateDirectory, archiveFiles.key)
    if (!existsSync(keyFile)) await this.generateKey(keyFile)
    const line = authorizedKeysLine({
      cluster: 'shop',
      node: key,
      systemIdentifier,
      dir,
      receiverPath,
      publicKey: readFileSync(`${keyFile}.pub`, 'utf8'),
    })
    const authorized = readFileSync(join(this.root, 'authorized_keys'), 'utf8')
    this.write('authorized_keys', ensureAuthorizedKeysLine(authorized, line))
    const hostKey = readFileSync(join(this.root, 'host_key.pub'), 'utf8')
    this.write(
      join(stateDirectory, archiveFiles.knownHosts),
      archiveKnownHosts({ host: '127.0.0.1', port }, [hostKey]),
    )
    return new ArchiveNode(this, stateDirectory, receiverPath, systemIdentifier)
  }

  async generateKey(file: string): Promise<void> {
    const made = await this.run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', file])
    if (made.status !== 0) throw new Error(made.stderr)
  }

  #forShell(shell: Shell, script: string): string {
    if (shell !== 'busybox') return script.replace('#!/bin/sh', `#!/bin/${shell}`)
    return script
      .replace('#!/bin/sh', '#!/bin/busybox sh')
      .replace('PATH=${PATH:-', `PATH=${this.root}/busybox:\${PATH:-`)
  }

  /** Starts a program as the user, in a process group of its own. */
  spawn(program: string, args: readonly string[], { cwd, env, stdin }: RunOptions = {}): ChildProcess {
    const child = spawn(program, args, {
      ...this.#ids,
      cwd: cwd ?? this.root,
      env: { HOME: this.#home, USER: this.user, LOGNAME: this.user, PATH: '/usr/bin:/bin', ...env },
      stdio: 'pipe',
      detached: true,
    })
    child.stdin!.on('error', () => undefined)
    if (stdin !== undefined) child.stdin!.end(stdin)
    return child
  }

  /** Runs a program to its end, which is reached when nobody holds its output open any more. */
  async run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    const child = this.spawn(program, args, { stdin: '', ...options })
    let stdout = ''
    let stderr = ''
    child.stdout!.setEncoding('latin1').on('data', (chunk: string) => {
      stdout += chunk
    })
    child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
      stderr += chunk
    })
    const timer = setTimeout(() => killQuietly(-child.pid!), options.timeoutMs ?? 120_000)
    return await new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (status, signal) => {
        clearTimeout(timer)
        resolve({ status, signal, stdout, stderr })
      })
    })
  }
}

/** A node's side: its scripts, run as PostgreSQL runs them. */
export class ArchiveNode {
  readonly kit: ArchiveKit
  readonly stateDirectory: string
  readonly receiverPath: string
  readonly systemIdentifier: string

  constructor(kit: ArchiveKit, stateDirectory: string, receiverPath: string, systemIdentifier: string) {
    this.kit = kit
    this.stateDirectory = stateDirectory
    this.receiverPath = receiverPath
    this.systemIdentifier = systemIdentifier
  }

  get pushPath(): string {
    return join(this.stateDirectory, archiveFiles.push)
  }

  get fetchPath(): string {
    return join(this.stateDirectory, archiveFiles.fetch)
  }

  get walDir(): string {
    return join(this.kit.archiveDir, this.systemIdentifier, 'wal')
  }

  push(file: string, name: string): Promise<Finished> {
    return this.kit.run(this.pushPath, [file, name])
  }

  fetch(name: string, path: string, options: RunOptions = {}): Promise<Finished> {
    return this.kit.run(this.fetchPath, [name, path], options)
  }

  /** ssh with the node's key, for what the scripts would never ask. */
  ssh(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    const { port, user } = this.kit
    const known = `UserKnownHostsFile=${this.stateDirectory}/${archiveFiles.knownHosts}`
    const identity = `${this.stateDirectory}/${archiveFiles.key}`
    const common = [
      '-F',
      'none',
      '-i',
      identity,
      '-o',
      known,
      '-o',
      'BatchMode=yes',
      '-o',
      'IdentitiesOnly=yes',
    ]
    const place = ['-p', String(port), '-l', user]
    return this.kit.run('ssh', [...common, ...place, ...args], options)
  }

  /** archive-receive without sshd. */
  receive(request: string, stdin: string | Uint8Array = ''): Promise<Finished> {
    return this.kit.run(this.receiverPath, [this.kit.archiveDir, this.systemIdentifier], {
      env: { SSH_ORIGINAL_COMMAND: request },
      stdin,
    })
  }

  /** Names in the archive, without what is hidden. */
  archived(): readonly string[] {
    return readdirSync(this.walDir)
      .filter((name) => !name.startsWith('.'))
      .sort()
  }

  /** Pushes that are under way, or were killed. */
  incoming(): readonly string[] {
    const directory = join(this.walDir, '.incoming')
    return existsSync(directory) ? readdirSync(directory).filter((name) => name.endsWith('.push')) : []
  }

  /** Ends the warm connection. */
  async disconnect(): Promise<void> {
    const socket = readdirSync(this.stateDirectory).find((name) => /^ssh-[0-9a-f]{8}$/.test(name))
    if (!socket) return
    await this.kit.run('ssh', ['-o', `ControlPath=${socket}`, '-O', 'exit', '127.0.0.1'], {
      cwd: this.stateDirectory,
    })
  }
}

export const sha256 = (data: Uint8Array | string): string => createHash('sha256').update(data).digest('hex')

export function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended already.
  }
}

const busyboxApplets = [
  'cat',
  'date',
  'dd',
  'find',
  'grep',
  'gzip',
  'head',
  'ln',
  'mkdir',
  'mv',
  'od',
  'printf',
  'rm',
].concat(['sha256sum', 'sleep', 'sync', 'wc'])

function unprivilegedAccount() {
  const { uid, gid, username } = userInfo()
  if (uid !== 0) return { name: username, uid, gid, switch: false }
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('postgres:'))
  if (!line) throw new Error('these tests need a user "postgres" when they run as root')
  const [name, , userId, groupId] = line.split(':')
  return { name: name!, uid: Number(userId), gid: Number(groupId), switch: true }
}

/** Below the ephemeral range, so that no outgoing connection takes it meanwhile. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer()
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
    })
    if (free) return port
  }
}

async function isListening(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

const processIds = (): readonly number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)

function childrenOf(parent: number): readonly number[] {
  return processIds().filter((pid) => {
    try {
      return (
        readFileSync(`/proc/${pid}/stat`, 'utf8')
          .replace(/^.*\) /, '')
          .split(' ')[1] === String(parent)
      )
    } catch {
      return false
    }
  })
}
