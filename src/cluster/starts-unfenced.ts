import { ReplctlError } from '../errors.ts'
import type { ClusterRecord } from './facts.ts'
import type { NodeName } from './names.ts'

/** What is known when an old primary could not be reached. */
export interface Unfenced {
  readonly record: ClusterRecord | null
  readonly members: readonly NodeName[]
  /** Who knows of the new primary: itself, and who follows it. */
  readonly informed: readonly NodeName[]
  /** Its host answers, and nothing can be written there. */
  readonly isUnwritable?: boolean
}

/**
 * The warning that an old primary, on whose host replctl could not leave anything, may come up read-write: what starts it
 * there starts it as it was, unless its service asks the others first. Those who do not know of the new primary may then
 * be more than half. Null: it will be told.
 */
export function startsUnfenced(
  node: NodeName,
  newPrimary: NodeName,
  { record, members, informed, isUnwritable = false }: Unfenced,
): ReplctlError | null {
  const isGuarded = record?.primary === node && record.isPrimaryGuarded === true
  const reached = informed.filter((name) => members.includes(name)).length
  const isOutvoted = 2 * reached < members.length
  if (isGuarded && !isOutvoted) return null
  const because = isUnwritable ? 'Nothing can be written there' : 'It could not be reached'
  const unguarded = `${because}, so it could not be fenced in its own data directory.`
  const outvoted = `${because}, and its start guard may be answered by nodes that know of no new primary: only ${reached} of ${members.length} members can be told of it now.`
  return new ReplctlError(
    'start-guard-missing',
    `nothing keeps ${node} from coming up read-write when its ${isUnwritable ? 'data directory can be written again' : 'host is back'}`,
    {
      detail: isGuarded ? outvoted : unguarded,
      hint: `Keep PostgreSQL from starting there; once its ${isUnwritable ? 'data directory can be written' : 'host answers'} and before PostgreSQL is started there, "replctl promote ${newPrimary}" fences it.`,
      node,
    },
  )
}
