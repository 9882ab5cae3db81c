import type { NodeFacts } from './facts.ts'
import { isForeign } from './record.ts'
import type { ObservedNode, Topology } from './topology.ts'

/**
 * A server that refuses a login lives, and says so: too many connections (53300), or none for replctl (28…: pg_hba.conf, the role; 3D000:
 * the database). What it says while it starts or stops (57P0…), or of a broken disk, is no such answer.
 * @see https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const refusals = /^(53300|28...|3D000|42501)$/

/** Why the running instance of a node lets nobody in although it works: it answers, all the same. Null: it does not say that. */
export function whyClosed({ instance, postmaster, instanceError }: NodeFacts): string | null {
  if (instance !== null || postmaster?.isAlive !== true || postmaster.isFrozen) return null
  const { sqlState = '' } = (instanceError?.cause ?? {}) as { readonly sqlState?: string }
  if (instanceError?.code !== 'sql-failed' || !refusals.test(sqlState)) return null
  return sqlState === '53300' ? 'has no connection free' : 'does not let replctl in'
}

/** The node whose instance runs as a primary by its pg_control, and answers, but lets nobody in; undefined: there is none. */
export function closedPrimary({ nodes }: Pick<Topology, 'nodes'>): ObservedNode | undefined {
  const survey = nodes.map(({ facts }) => facts)
  return nodes.find(
    ({ facts }) =>
      whyClosed(facts) !== null && facts.control?.state === 'in production' && !isForeign(facts, survey),
  )
}
