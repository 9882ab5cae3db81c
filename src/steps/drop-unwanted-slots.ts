import type { NodeName } from '../cluster/names.ts'
import { pending, type Step, satisfied, unknownUntil } from '../engine/step.ts'
import { ask, lookAtInstance } from './look.ts'
import { dropSlot } from './replication-slots.ts'

/** No physical slot under one of these names holds WAL back on a node any more. Slots of other names are not ours: they stay. */
export function dropUnwantedSlots(node: NodeName, slots: readonly string[]): Step {
  return {
    title: "drop the cluster's own replication slots that no standby uses any more",
    node,
    check: async (ctx) => {
      const instance = await lookAtInstance(ctx)
      if (instance === null) return unknownUntil(`PostgreSQL runs on ${node}`)
      const left = instance.slots.filter((one) => one.type === 'physical' && slots.includes(one.name))
      return left.length === 0
        ? satisfied('there are none')
        : pending(`to drop: ${left.map((one) => one.name).join(', ')}`)
    },
    apply: async (ctx) => {
      const { facts, sql } = await ask(ctx)
      for (const { name, type } of facts.instance?.slots ?? []) {
        if (type === 'physical' && slots.includes(name)) await dropSlot(sql, name)
      }
    },
  }
}
