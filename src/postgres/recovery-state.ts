/** How far an instance is that recovers and takes no reads yet. */
export interface RecoveryState {
  /** The end of its log. */
  readonly log: string
  /** What its processes have done so far; null where the host does not tell. */
  readonly work: {
    /** Hundredths of a second of the processor, as a rule. */
    readonly ticks: number
    readonly bytes: number
    readonly waitsForDisk: boolean
  } | null
}

/** Reads `at work 12 163840 no`, and the end of the log after it. */
export function parseRecoveryState(told: string): RecoveryState {
  const match = /^at work (\d+) (\d+) (yes|no)\n/.exec(told)
  if (match === null) return { log: told, work: null }
  const [first, ticks, bytes, disk] = match
  const work = { ticks: Number(ticks), bytes: Number(bytes), waitsForDisk: disk === 'yes' }
  return { log: told.slice(first.length), work }
}

/**
 * Whether recovery got on between two looks. It is silent for minutes while it replays; one that waits for WAL wakes up
 * each few seconds, looks for it, and does next to nothing.
 */
export function hasGotOn(before: RecoveryState, now: RecoveryState): boolean {
  if (lastWord(now.log) !== lastWord(before.log)) return true
  if (now.work === null || before.work === null) return false
  const { ticks, bytes, waitsForDisk } = now.work
  return waitsForDisk || ticks - before.work.ticks >= 20 || bytes - before.work.bytes >= 4 * 1024 * 1024
}

/** From 15 on a standby says that it waits for WAL as often as it looks for it. */
const lastWord = (log: string): string =>
  log.split('\n').findLast((line) => line.trim() !== '' && !/waiting for WAL to become/.test(line)) ?? ''

/** Why it does not get on, as far as its log tells. */
export function standstill(log: string): string {
  return /consistent recovery state reached/.test(log)
    ? 'It replayed its WAL and takes no reads.'
    : 'It waits for WAL that is not there: what lies in its pg_wal ends before its data is consistent.'
}
