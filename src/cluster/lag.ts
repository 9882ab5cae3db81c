import type { ControlData } from '../postgres/control-data.ts'
import { compareLsn, lsnDistance } from '../postgres/lsn.ts'
import type { InstanceFacts, NodeFacts, Survey } from './facts.ts'
import { commonRecord } from './record.ts'

/** How far a node is behind the primary: in bytes of WAL, and for how long. Null where nobody can tell. */
export interface Lag {
  readonly lagBytes: number | null
  readonly lagSeconds: number | null
}

/**
 * How late a node replays. `primary`: who leads; null where nobody does. `isCutOff`: it believes that it streams, and gets
 * nothing any more.
 */
export function lagOf(facts: NodeFacts, survey: Survey, primary: NodeFacts | null, isCutOff: boolean): Lag {
  const lagBytes = primary === null ? lagBehindEnd(facts, survey) : lagBehind(facts, primary)
  const { instance } = facts
  if (instance?.isInRecovery !== true) return { lagBytes, lagSeconds: null }
  // One that lacks nothing is not late, however long ago the last transaction was.
  if (lagBytes === 0) return { lagBytes, lagSeconds: 0 }
  if (isCutOff) return { lagBytes, lagSeconds: instance.lastReplayedSeconds }
  // The last transaction grows older while nobody writes: that is no lag.
  const isIdle = primary === null && hasReplayedAll(instance) && hasEnded(survey)
  return { lagBytes, lagSeconds: isIdle ? null : instance.replayLagSeconds }
}

function lagBehind({ instance }: NodeFacts, primary: NodeFacts): number | null {
  const [from, to] = [instance?.replayLsn ?? null, primary.instance?.currentLsn ?? null]
  return from === null || to === null ? null : Math.max(0, lsnDistance(from, to))
}

/** 0 where it has replayed the last record of a primary that was stopped in order: nobody has anything that it lacks. */
function lagBehindEnd({ instance }: NodeFacts, survey: Survey): number | null {
  const end = lastCheckpoint(survey)
  if (end === null || instance?.isInRecovery !== true || instance.replayLsn === null) return null
  const isOfSame = instance.systemIdentifier === end.systemIdentifier && instance.timeline === end.timeline
  // Where that record begins is what pg_control tells; what was replayed ends behind it.
  return isOfSame && compareLsn(instance.replayLsn, end.checkpointLsn) > 0 ? 0 : null
}

/** The shutdown checkpoint of who led last; null where it ended otherwise, or where anybody may have written since. */
function lastCheckpoint(survey: Survey): ControlData | null {
  const control = ledLast(survey)?.control ?? null
  if (control?.state !== 'shut down' || survey.some(mayWrite)) return null
  const isSuperseded = survey.some(
    ({ instance, control: one }) => (instance?.timeline ?? one?.timeline ?? 0) > control.timeline,
  )
  return isSuperseded ? null : control
}

const ledLast = (survey: Survey): NodeFacts | undefined => {
  const led = commonRecord(survey)?.primary
  return survey.find(({ name }) => name === led)
}

/** Whether who led is seen not to write any more, and nobody else does; where nobody knows who that was, nobody may. */
function hasEnded(survey: Survey): boolean {
  const led = ledLast(survey)
  return !survey.some((one) => (led === undefined || one === led || one.instance !== null) && mayWrite(one))
}

/** What cannot be asked may write. */
function mayWrite({ unreachable, instance, postmaster, strayInstance }: NodeFacts): boolean {
  if (unreachable !== null || strayInstance?.isInRecovery === false) return true
  return instance === null ? postmaster?.isAlive === true : !instance.isInRecovery
}

const hasReplayedAll = ({ receiveLsn, replayLsn }: InstanceFacts): boolean =>
  replayLsn !== null && (receiveLsn === null || compareLsn(replayLsn, receiveLsn) >= 0)
