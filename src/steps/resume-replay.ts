import type { NodeFacts } from '../cluster/facts.ts'
import { refuseInsufficient } from '../cluster/insufficient-settings.ts'
import type { StepContext } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { sqlOf } from './look.ts'

/**
 * Has a standby that is to lead replay again where that was paused: until then it would get no WAL from a new upstream or from
 * the archive (13 and newer). Told and never taken back: paused, it could not return to the upstream it had either.
 * @throws {ReplctlError} `settings-too-low` where PostgreSQL paused it: resumed, it would shut down
 */
export async function resumeReplay(ctx: StepContext, facts: NodeFacts): Promise<void> {
  if (facts.instance?.isInRecovery !== true || !facts.instance.isReplayPaused) return
  const { name } = facts
  const refusal = refuseInsufficient(facts, `cannot have ${name} replay again`)
  if (refusal !== null) throw refusal
  await (await sqlOf(ctx, facts)).execute('SELECT pg_wal_replay_resume()')
  ctx.warn(
    new ReplctlError('replay-paused', `replay was paused on ${name}, and goes on`, {
      detail: `A standby whose replay is paused gets no WAL but from the upstream that it has, and ${name} is to lead.`,
      hint: `If ${name} stays a standby and is to be paused: SELECT pg_wal_replay_pause();`,
      node: name,
    }),
  )
}
