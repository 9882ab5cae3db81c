import type { InstanceFacts, NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import type { StepContext } from '../engine/step.ts'
import type { ReplctlError } from '../errors.ts'
import { sqlStateOf } from '../node/sql-session.ts'
import { awaitState, look } from './look.ts'

/**
 * Waits until the instance that was just started answers; what it said last comes with a timeout.
 * @throws {ReplctlError} at once where it refuses us for a reason that no waiting mends; what `proveAlive` throws
 */
export async function awaitInstance(
  ctx: StepContext,
  node: NodeName,
  proveAlive: (facts: NodeFacts) => void = () => undefined,
): Promise<InstanceFacts> {
  let last: ReplctlError | null = null
  const probe = async () => {
    const facts = await look(ctx)
    proveAlive(facts)
    last = facts.instanceError
    const refusal = lastingRefusal(facts, ctx.node.settings.postgres.database)
    if (refusal !== null) throw refusal
    return facts.instance ?? undefined
  }
  const said = () =>
    last === null ? 'It said nothing.' : [`${last.message}.`, last.detail ?? ''].join(' ').trimEnd()
  return await awaitState(ctx, `PostgreSQL on ${node} answers`, probe, { last: said })
}

/**
 * The database is not there (3D000), or the login is refused (class 28). "Starting up" (57P03) passes; and a standby may yet
 * replay the database, or the role, that it lacks.
 */
function lastingRefusal(
  { instanceError, hasStandbySignal }: NodeFacts,
  database: string,
): ReplctlError | null {
  const state = sqlStateOf(instanceError) ?? ''
  if (instanceError === null || hasStandbySignal) return null
  if (state === '3D000') {
    return instanceError.with({
      hint: `Create database "${database}" there, or set postgres.database in the inventory to one that exists.`,
    })
  }
  if (!state.startsWith('28')) return null
  return instanceError.with({
    hint: 'replctl logs in on the local socket as the superuser that is called like the OS user: look at the "local" lines of pg_hba.conf.',
  })
}
