import { ReplctlError } from '../errors.ts'
import { configuredUser } from './configured-upstream.ts'
import type { Inventory } from './inventory.ts'
import type { NodeName } from './names.ts'
import { isRunningStandby, type Topology } from './topology.ts'

/**
 * Why another `replication.user` cannot be rendered now: standbys that were built log in as the one from before. Their passfiles and
 * the lines of pg_hba.conf would be the new one's alone, and each would be refused when it connects the next time. `rendered` get
 * the new one in their own settings. `isFailover`: there is no primary that could get the new role first.
 */
export function refusalOfRoleChange(
  { replication }: Inventory,
  { nodes }: Topology,
  rendered: readonly NodeName[],
  { isFailover = false }: { readonly isFailover?: boolean } = {},
): ReplctlError | null {
  const others = nodes.filter(
    ({ facts, role }) =>
      role === 'standby' &&
      isRunningStandby(facts) &&
      facts.mark?.phase === 'done' &&
      (configuredUser(facts) ?? replication.user) !== replication.user,
  )
  const [left] = others.filter(({ facts }) => !rendered.includes(facts.name))
  if (left === undefined) return null
  const was = configuredUser(left.facts)
  return new ReplctlError(
    'replication-login-failed',
    `${left.facts.name} would not be let in any more by its upstream`,
    {
      detail: `It logs in as "${was}", and replication.user is "${replication.user}" now.`,
      hint: isFailover
        ? `Set replication.user back to "${was}" and run promote again. Once there is a primary, change it, and run "replctl add-standby" with all standbys at once.`
        : `Render all of them at once: replctl add-standby ${others.map(({ facts }) => facts.name).join(' ')}. Or set replication.user back to "${was}".`,
      node: left.facts.name,
    },
  )
}
