import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SshSettings } from '../../../src/config/inventory.ts'
import { descendantsOf, exec, findProgram, freePort, isRoot, me, reportMissing, until } from './machine.ts'

export const sshdPath = findProgram('sshd')
export const hasSshd = sshdPath !== undefined && findProgram('ssh-keygen') !== undefined
if (!hasSshd) reportMissing('everything over SSH (install openssh-server and openssh-client)')

export type KeyType = 'ed25519' | 'ecdsa' | 'rsa'

/** An sshd of our own on a loopback address, with its own configuration, host keys and users' keys. */
export interface TestSshd {
  readonly folder: string
  readonly port: number
  readonly pid: number
  /** Lines of known_hosts for its host keys. */
  knownHostLines(types?: readonly KeyType[]): string
  /** A known_hosts file with all its host keys. */
  readonly knownHosts: string
  /** A key that every user accepts. */
  readonly identity: string
  /** Settings to log in as `user`, strict, with that key. */
  settings(user: string, overrides?: Partial<SshSettings>): SshSettings
  /** Lets a user log in with a further key. */
  authorize(user: string, publicKey: string): void
  /** Processes that serve its connections. */
  sessions(): readonly number[]
  signalSessions(signal: NodeJS.Signals): void
  log(): string
  stop(): Promise<void>
}

export interface TestSshdOptions {
  readonly users?: readonly string[]
  readonly hostKeys?: readonly KeyType[]
  /** Further lines of sshd_config, e.g. `MaxSessions 4`. */
  readonly config?: readonly string[]
}

/** Makes a key pair without a passphrase unless one is given. */
export function makeKey(file: string, type: KeyType = 'ed25519', passphrase = ''): string {
  exec('ssh-keygen', ['-q', '-t', type, '-N', passphrase, '-C', 'conformance', '-f', file])
  return file
}

/** Starts an sshd; stop it in `afterAll`. */
export async function startSshd(options: TestSshdOptions = {}): Promise<TestSshd> {
  const { users = [me.username], hostKeys = ['ed25519', 'ecdsa', 'rsa'], config = [] } = options
  const folder = mkdtempSync(join(tmpdir(), 'conformance-sshd-'))
  chmodSync(folder, 0o755)
  if (isRoot) mkdirSync('/run/sshd', { recursive: true })
  for (const type of hostKeys) makeKey(join(folder, `host_${type}`), type)
  const identity = makeKey(join(folder, 'identity'))
  mkdirSync(join(folder, 'keys'))
  const authorize = (user: string, publicKey: string): void =>
    writeFileSync(join(folder, 'keys', user), publicKey, { flag: 'a', mode: 0o644 })
  for (const user of users) authorize(user, readFileSync(`${identity}.pub`, 'utf8'))

  const port = await freePort()
  const lines = [
    ...config,
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    ...hostKeys.map((type) => `HostKey ${join(folder, `host_${type}`)}`),
    `AuthorizedKeysFile ${join(folder, 'keys')}/%u`,
    'StrictModes no',
    'PidFile none',
    'PermitRootLogin yes',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'MaxStartups 100',
  ]
  writeFileSync(join(folder, 'sshd_config'), `${lines.join('\n')}\n`)
  const log = join(folder, 'log')
  const child = spawn(sshdPath!, ['-D', '-f', join(folder, 'sshd_config'), '-E', log], { stdio: 'ignore' })
  await until('sshd listens', 10_000, () => canConnect(port, child, log))

  const knownHostLines = (types = hostKeys): string =>
    types
      .map((type) =>
        readFileSync(join(folder, `host_${type}.pub`), 'utf8')
          .split(' ')
          .slice(0, 2)
          .join(' '),
      )
      .map((key) => `[127.0.0.1]:${port} ${key}\n`)
      .join('')
  const knownHosts = join(folder, 'known_hosts')
  writeFileSync(knownHosts, knownHostLines())
  const pid = child.pid!
  return {
    folder,
    port,
    pid,
    knownHosts,
    identity,
    authorize,
    knownHostLines,
    settings: (user, overrides = {}) => ({
      user,
      port,
      identityFile: identity,
      configFile: undefined,
      knownHosts,
      hostKeyPolicy: 'strict',
      connectTimeoutMs: 5000,
      ...overrides,
    }),
    sessions: () => descendantsOf(pid),
    signalSessions: (signal) => {
      for (const session of descendantsOf(pid)) signalIfThere(session, signal)
    },
    log: () => readFileSync(log, 'utf8'),
    stop: async () => {
      const sessions = descendantsOf(pid)
      const gone = new Promise((resolve) => child.once('exit', resolve))
      child.kill('SIGKILL')
      for (const session of sessions) signalIfThere(session, 'SIGKILL')
      await gone
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It ended by itself.
  }
}

function canConnect(port: number, child: ChildProcess, log: string): Promise<boolean> {
  if (child.exitCode !== null) throw new Error(`sshd did not start: ${readFileSync(log, 'utf8')}`)
  return new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1')
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}
