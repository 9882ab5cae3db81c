import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { refused, type Step, satisfied } from '../engine/step.ts'
import { findServing } from '../node/find-serving.ts'
import { servesElsewhere } from './fence-stopped.ts'
import { signOfLife } from './fence-unreachable.ts'

export interface AbsentPrimary {
  readonly node: NodeSettings
  /** Of the cluster; null where nobody knows it. */
  readonly systemIdentifier: string | null
}

/**
 * A former primary whose host answers, and whose data directory holds no instance: wiped, moved away while the server runs,
 * or wrongly named in the inventory. There is nothing that could be fenced, so nothing of it may be alive: neither a process
 * on its host that serves the port, nor anything that a standby (`witnesses`, the candidate first) sees. What
 * another cluster runs there on the same port is none of it.
 */
export function requireNoSignOfLife(
  { node, systemIdentifier }: AbsentPrimary,
  witnesses: readonly NodeName[],
): Step {
  return {
    title: `require no sign of life of ${node.name}, whose data directory holds no instance`,
    node: node.name,
    check: async (ctx) => {
      const serving = await findServing(ctx.node)
      const isOther = (identifier: string) =>
        systemIdentifier !== null && identifier !== '' && identifier !== systemIdentifier
      const own = serving.find((one) => !isOther(one.systemIdentifier))
      if (own !== undefined) {
        return refused(
          servesElsewhere(node, `process ${own.pid} serves port ${node.postgres.port} from ${own.directory}`),
        )
      }
      const isPortOfOther = serving.length > 0
      const sign = await signOfLife(ctx, node, witnesses, { isPortOfOther })
      return sign === null ? satisfied('nobody sees it alive') : refused(servesElsewhere(node, sign))
    },
  }
}
