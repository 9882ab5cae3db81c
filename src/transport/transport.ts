import type { Duplex } from 'node:stream'
import type { Command } from '../command.ts'

/** What a finished command left. Exactly one of `status` and `signal` is set. */
export interface CommandResult {
  readonly status: number | null
  /** e.g. `SIGTERM`. */
  readonly signal: string | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  /** The command is killed on the host and the call rejects with `timeout` after this long. */
  readonly timeoutMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** Bounds of a long-lived command: `timeoutMs` and `signal` are about its whole life. */
export interface StartOptions extends RunOptions {
  /** How long it may take to begin once it was launched; 20 s where nothing is said. Then it is stopped: `timeout`. */
  readonly beginWithinMs?: number | undefined
  /** Aborted before the command has begun: it is stopped. Afterwards it means nothing. */
  readonly beginSignal?: AbortSignal | undefined
}

/**
 * A long-lived command with its pipes: the lock's holder, a psql session.
 * Closing ends its standard input; a well-behaved remote script then exits.
 */
export interface RunningCommand {
  /** Sends text to standard input. Rejects with `connection-lost` when the link is gone. */
  write(text: string): Promise<void>
  endInput(): void
  /** Called with each chunk of standard output (utf-8, after the framing is removed). */
  onStdout(listener: (chunk: string) => void): void
  onStderr(listener: (chunk: string) => void): void
  /** Resolves when the command ended; rejects with `connection-lost` when the outcome is unknown. */
  readonly finished: Promise<{ readonly status: number | null; readonly signal: string | null }>
  /** Sends SIGTERM (best effort), ends input, and does not wait. */
  kill(): void
}

export interface ConnectOptions {
  /** Where the host could not be reached before, it is tried anew. */
  readonly again?: true
}

/**
 * How a machine is reached. Knows nothing of PostgreSQL. Promises, held by every implementation and
 * checked by test/conformance:
 * - `run` resolves for every exit status; it rejects only when the command could not be run or its outcome is
 *   unknown (`host-unreachable`, `host-key-…`, `auth-refused`, `sudo-refused`, `connection-lost`, `timeout`).
 * - Commands run under /bin/sh with a clean environment (HOME, USER, LOGNAME, PATH, LC_ALL=C only), as
 *   `command.runAs`, whatever the login shell, its start-up files, banners or locale are.
 * - stdout and stderr hold only what the command itself printed.
 * - Many commands may run at once; one connection serves them all.
 * - A dead link is noticed within 15 s (keepalive) and rejects everything that is pending with `connection-lost`.
 */
export interface Transport {
  /** e.g. `10.0.0.11` or `local`. */
  readonly host: string
  /** Resolves once logged in; later calls return the same promise. */
  connect(options?: ConnectOptions): Promise<void>
  /** Whether SQL through `openUnixSocket` is seen by the server as the PostgreSQL OS user (peer authentication). */
  readonly socketPeerIsOsUser: boolean
  run(command: Command, options?: RunOptions): Promise<CommandResult>
  start(command: Command, options?: StartOptions): Promise<RunningCommand>
  /**
   * Connects to a unix socket on the host, e.g. `/var/run/postgresql/.s.PGSQL.5432`.
   * The stream emits `connect` and has the methods that `pg` calls on a net.Socket.
   * `isExplained` false: a failure need not say why, which may cost a look at the host.
   */
  openUnixSocket(path: string, isExplained?: boolean): Promise<Duplex>
  close(): Promise<void>
}

/** Called with every command as it begins and ends: what `--verbose` shows. */
export interface TransportObserver {
  commandStarted?(host: string, command: Command): void
  commandFinished?(host: string, command: Command, result: CommandResult, ms: number): void
}
