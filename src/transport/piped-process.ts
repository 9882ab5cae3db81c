import type { Readable } from 'node:stream'

/** How a process ended: exactly one of the two is set. */
export interface Exit {
  readonly status: number | null
  readonly signal: string | null
}

/** A shell line under way with its pipes: what an ssh channel and a local child have in common. */
export interface PipedProcess {
  readonly stdout: Readable
  readonly stderr: Readable
  /** Resolves once the bytes were taken; rejects when they never will be. */
  write(data: string | Uint8Array): Promise<void>
  endInput(): void
  /** Resolves when the process ended (its pipes may still hold output); `undefined`: the link was lost first. */
  readonly exited: Promise<Exit | undefined>
  /** Resolves when the process ended and its pipes are at their end, or the link is lost. */
  readonly closed: Promise<void>
  /** Resolves when everything the process wrote before it ended has been received. */
  settle(): Promise<void>
  /** Asks for SIGTERM through the process's own channel, where there is one; best effort. */
  terminate(): void
  /** Lets go of the pipes, whatever the process does. */
  release(): void
}

export type LaunchKind =
  /** Ends by itself soon. */
  | 'short'
  /** Stays for long, and must not starve the short ones. */
  | 'long'
  /** Must not wait for a free channel: it kills another command. */
  | 'urgent'

/** Begins a shell line on the host, through the login user's shell. */
export type Launch = (line: string, kind: LaunchKind, signal: AbortSignal) => Promise<PipedProcess>
