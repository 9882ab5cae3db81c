/** What postmaster.pid says about the instance that holds the data directory. */
export interface PostmasterPid {
  readonly pid: number
  /** As the postmaster was given it. */
  readonly dataDirectory: string
  /** Seconds since 1970, by the host's clock. */
  readonly startedAtEpoch: number | undefined
  readonly port: number | undefined
  /** The first of unix_socket_directories; undefined: none, or not yet written. */
  readonly socketDirectory: string | undefined
  /** The first listen address, as written in the setting, e.g. `*`; undefined: none, or not yet written. */
  readonly listenAddress: string | undefined
  readonly status: PostmasterStatus | undefined
}

/** `ready`: accepts connections; `standby`: a standby that accepts no connections (yet). */
export const postmasterStatuses = ['starting', 'stopping', 'ready', 'standby'] as const
export type PostmasterStatus = (typeof postmasterStatuses)[number]

/**
 * Parses postmaster.pid. A starting postmaster writes it line by line, so all but pid and data directory may be absent.
 * Undefined if not even the pid is there: the file is just being written, or is no such file.
 * @see src/include/utils/pidfile.h
 */
export function parsePostmasterPid(text: string): PostmasterPid | undefined {
  const [pid = '', dataDirectory, startedAt, port, socketDirectory, listenAddress, , status] =
    text.split('\n')
  // A stand-alone backend (postgres --single) writes its pid negative.
  if (!/^-?\d+$/.test(pid.trim()) || !dataDirectory) return undefined
  return {
    pid: Math.abs(Number(pid)),
    dataDirectory,
    startedAtEpoch: toNumber(startedAt),
    port: toNumber(port),
    socketDirectory: socketDirectory || undefined,
    listenAddress: listenAddress || undefined,
    status: postmasterStatuses.find((known) => known === status?.trim()),
  }
}

const toNumber = (line: string | undefined) => (line ? Number(line) : undefined)
