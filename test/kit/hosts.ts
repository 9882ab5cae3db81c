import type { FinishedProcess } from './run-process.ts'

/** Who a test logs in as; every test host has all three. */
export type LoginUser = 'postgres' | 'admin' | 'root'

export interface ExecOptions {
  /** Default `root` (on loopback hosts: whoever runs the tests). */
  readonly user?: string | undefined
  readonly input?: string | Uint8Array | undefined
  readonly env?: Readonly<Record<string, string>> | undefined
  /** Default 120 s; then everything the command started in its process group is killed and the call rejects. */
  readonly timeoutMs?: number | undefined
  /** Whether the call rejects unless the exit status is 0. Default true. */
  readonly check?: boolean | undefined
}

/** How a client on the control host logs in to a test host. */
export interface SshAccess {
  /** e.g. `10.123.7.11` */
  readonly host: string
  readonly port: number
  readonly user: string
  /** Private key without a passphrase. */
  readonly identityFile: string
  /** Holds the keys of all hosts of the run as they were at their creation. */
  readonly knownHostsFile: string
}

export interface InstancePlace {
  readonly port: number
  readonly dataDir: string
  readonly osUser: string
  /** Where the server's own default cannot be used. */
  readonly socketDirectory?: string
}

/** What test hosts of either kind can do: those in namespaces of their own, and those on the loopback interface. */
export interface Hosts {
  readonly kind: 'namespaces' | 'loopback'
  readonly names: readonly string[]
  /** Folder of this run on the control host; `destroy` removes it. */
  readonly directory: string
  readonly identityFile: string
  readonly knownHostsFile: string
  /** The user replctl logs in as. */
  loginOf(host: string): string
  addressOf(host: string): string
  /** Whether the host has power. */
  isOn(host: string): boolean
  /** Port and data directory for this host's instance: they differ where hosts share a machine. */
  postgresOf(host: string): InstancePlace
  sshConfigFor(host: string, user?: string): SshAccess
  /**
   * Runs a script (a string, by /bin/sh) or a program (an array) on the host, not through SSH, in the user's home and
   * with that user's fresh environment.
   */
  exec(host: string, command: string | readonly string[], options?: ExecOptions): Promise<FinishedProcess>
  writeFile(host: string, path: string, content: string | Uint8Array, options?: WriteOptions): Promise<void>
  readFile(host: string, path: string): Promise<string>
  /** Pids, as the host sees them, of processes whose command line matches the regular expression. */
  pids(host: string, pattern: string): Promise<number[]>
  kill(host: string, pid: number, signal?: NodeJS.Signals): Promise<void>
  /** New connections are refused from now on; with `sessions` those that are open end too. */
  stopSshd(host: string, options?: { readonly sessions?: boolean }): Promise<void>
  startSshd(host: string): Promise<void>
  /** Runs a command by the OpenSSH client, as an operator would. */
  ssh(host: string, command: string, options?: ExecOptions): Promise<FinishedProcess>
  /** Stops everything and leaves nothing behind. Safe to call twice. */
  destroy(): Promise<void>
}

export interface WriteOptions {
  /** Default root, or whoever runs the tests on loopback hosts. */
  readonly owner?: string
  /** Default 0644. */
  readonly mode?: number
}
