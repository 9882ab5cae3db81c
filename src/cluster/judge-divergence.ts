import { type ControlData, isCleanShutdown } from '../postgres/control-data.ts'
import { compareLsn, type Lsn, lsnDistance, type TimelineId } from '../postgres/lsn.ts'
import { commonAncestor, type TimelineHistory } from '../postgres/timeline-history.ts'

/** What a node's own files say of the WAL it holds. */
export interface OwnWal {
  /** Of its newest WAL, with its ancestors. */
  readonly history: TimelineHistory
  /** What its pg_control says; null where it cannot be read. */
  readonly control: ControlData | null
  /** It accepts writes now: what it writes next is its own. */
  readonly isWriter: boolean
  /** Running in recovery: how far it has received (or replayed). */
  readonly receivedLsn: Lsn | null
  /** Start of the last whole record that lies at or after the fork; `none`: there is none; `unknown`: it could not be read. */
  readonly lastRecord: Lsn | 'none' | 'unknown'
  /** First byte after that record. */
  readonly endLsn: Lsn | null
  /**
   * Whether its timeline is the one of that number in the primary's history: two standbys that were promoted beside
   * each other both begin the same number. Null: the WAL that would tell is gone.
   */
  readonly isSameBranch: boolean | null
  /** It may have been a primary: it was fenced as one, or has no standby signal. */
  readonly mayHaveLed: boolean
}

export type Divergence =
  | { readonly is: 'none'; readonly forkLsn: Lsn | null; readonly because: string }
  | {
      readonly is: 'diverged'
      /** The timeline that both have in common last, and where they part; null: they have nothing in common. */
      readonly timeline: TimelineId | null
      readonly forkLsn: Lsn | null
      /** Bytes of its WAL after the fork, as far as they are known. */
      readonly ownBytes: number | null
      /** Both have a timeline of the same number: pg_rewind would take it for the same one. */
      readonly isTwinTimeline: boolean
      readonly because: string
    }

/**
 * Whether a node holds WAL that the primary's history does not. Exact where its WAL can be read: a checkpoint in
 * pg_control is not the end of a crashed primary's WAL, which may hold confirmed transactions after it. What cannot be
 * shown to be part of the history counts as its own.
 */
export function judgeDivergence(own: OwnWal, primary: TimelineHistory): Divergence {
  const { history } = own
  const ancestor = commonAncestor(history, primary)
  if (ancestor === undefined) return nothingInCommon(own, primary)
  const isOwnTimeline = ancestor.timeline === history.timeline
  if (isOwnTimeline && own.isSameBranch === false) return twin(own)
  if (!isOwnTimeline) {
    return diverged(own, ancestor.timeline, ancestor.lsn, `it left timeline ${ancestor.timeline} on its own`)
  }
  if (ancestor.lsn === null) return judgeSameTimeline(own)
  return judgeBeyond(own, ancestor.timeline, ancestor.lsn)
}

/** The primary left the node's timeline at `fork`. */
function judgeBeyond(own: OwnWal, timeline: TimelineId, fork: Lsn): Divergence {
  const past = (what: string, at: string) =>
    diverged(own, timeline, fork, `${what} at ${at} is past the fork at ${fork} of timeline ${timeline}`)
  if (own.isWriter) return diverged(own, timeline, fork, 'it accepts writes of its own now')
  if (own.receivedLsn !== null) {
    return compareLsn(own.receivedLsn, fork) > 0
      ? past('what it received', own.receivedLsn)
      : none(fork, `it has received up to ${own.receivedLsn}, the fork is at ${fork}`)
  }
  const { control } = own
  if (control !== null && control.timeline === timeline && compareLsn(control.checkpointLsn, fork) >= 0) {
    return past('its last checkpoint', control.checkpointLsn)
  }
  const replayed = control?.minRecoveryEndTimeline === timeline ? control.minRecoveryEndLsn : null
  if (replayed !== null && compareLsn(replayed, fork) > 0) return past('what it replayed', replayed)
  if (own.lastRecord !== 'none' && own.lastRecord !== 'unknown') return past('its WAL', own.lastRecord)
  if (own.lastRecord === 'unknown' && !(control !== null && isCleanShutdown(control.state))) {
    return diverged(
      own,
      timeline,
      fork,
      'the end of its WAL cannot be read, and it did not shut down cleanly',
    )
  }
  return none(fork, `its WAL ends at or before the fork at ${fork} of timeline ${timeline}`)
}

function judgeSameTimeline(own: OwnWal): Divergence {
  const { timeline } = own.history
  if (own.isWriter) return twin(own)
  // On timeline 1 there is one branch only: that of initdb.
  if (own.isSameBranch === true || timeline === 1 || !own.mayHaveLed) {
    return none(own.history.switches.at(-1)?.leftAt ?? null, `it is on the primary's timeline ${timeline}`)
  }
  return twin(own)
}

/** Its timeline only has the number of the primary's. */
function twin(own: OwnWal): Divergence {
  const { history } = own
  const parent = history.switches.at(-1)
  return {
    is: 'diverged',
    timeline: parent?.timeline ?? null,
    forkLsn: parent?.leftAt ?? null,
    ownBytes: bytesAfter(own, parent?.leftAt ?? null),
    isTwinTimeline: true,
    because: `its timeline ${history.timeline} is another one than the primary's timeline of that number`,
  }
}

function nothingInCommon(own: OwnWal, primary: TimelineHistory): Divergence {
  return {
    is: 'diverged',
    timeline: null,
    forkLsn: null,
    ownBytes: null,
    isTwinTimeline: true,
    because: `its timeline ${own.history.timeline} and the primary's timeline ${primary.timeline} have no beginning in common`,
  }
}

function diverged(own: OwnWal, timeline: TimelineId, forkLsn: Lsn | null, because: string): Divergence {
  const ownBytes = bytesAfter(own, forkLsn)
  return { is: 'diverged', timeline, forkLsn, ownBytes, isTwinTimeline: false, because }
}

function none(forkLsn: Lsn | null, because: string): Divergence {
  return { is: 'none', forkLsn, because }
}

function bytesAfter(own: OwnWal, fork: Lsn | null): number | null {
  const end = own.endLsn ?? own.receivedLsn
  return fork === null || end === null ? null : Math.max(0, lsnDistance(fork, end))
}
