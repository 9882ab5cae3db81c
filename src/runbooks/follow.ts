import { primaryWaitsForStandbys } from '../cluster/failover-slots.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import type { Roles } from '../cluster/roles.ts'
import { inOrder, type Plan, type Step, together } from '../engine/step.ts'
import { onceFollowing } from '../steps/as-it-will-be.ts'
import { awaitFollowing } from '../steps/await-streaming.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { announceConfirming, ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureSettings } from '../steps/ensure-configuration.ts'
import {
  dropReplicationSlot,
  dropStaleSlots,
  ensureReplicationSlot,
  requireRoomForStandby,
} from '../steps/replication-slots.ts'
import { changeConfirming, repointStandby } from '../steps/repoint-standby.ts'
import { requireSameMajorVersion } from '../steps/require-binaries.ts'
import { requireReplicationLogin } from '../steps/require-replication-login.ts'
import { requireWalFor } from '../steps/require-wal.ts'

export interface FollowWish {
  readonly node: NodeSettings
  readonly upstream: NodeSettings
  /** Whom it receives from until now, where that is known. */
  readonly former: NodeSettings | null
  /** Null where nobody leads at the moment. */
  readonly primary: NodeName | null
  readonly rolesAfter: Roles | null
  readonly confirming: { readonly before: readonly NodeName[]; readonly after: readonly NodeName[] }
  /** Nodes that run: no slot of replctl's own is left over on any of them. */
  readonly running: readonly NodeName[]
  /** Nodes that are part of the cluster, as recorded; empty where there is no record. */
  readonly members: readonly NodeName[]
}

/**
 * Points one standby at another upstream: the primary, or a standby (cascading). Everything that could refuse it is tried
 * first. The new upstream keeps WAL for it before it changes over; from PostgreSQL 13 on it changes over by a reload, and
 * nobody who reads there notices. Until it streams, a failure points it back. Where it confirmed commits and will not any
 * more, the primary stops waiting for it before; where it will, it waits for it only when it streams.
 */
export function follow(input: ClusterInput, wish: FollowWish): Plan {
  const { node, upstream, former, primary, rolesAfter, confirming } = wish
  const { inventory } = input
  const { name, slotName } = node
  const { slots } = inventory.replication
  const recorded = primary === null ? [] : wish.running.filter((one) => wish.members.includes(one))
  const announce = primary === null ? [] : announceConfirming(recorded, primary, input, confirming.after)
  const stopsConfirming = confirming.before.includes(name) && !confirming.after.includes(name)
  return inOrder([
    requireSameMajorVersion(name, upstream.name),
    requireRoomForStandby(upstream.name, upstream.name, [node], slots, 1),
    requireReplicationLogin(name, upstream, inventory),
    requireWalFor(name, upstream.name, inventory, { mustBeKept: true }),
    ...(stopsConfirming && primary !== null
      ? [together(announce), changeConfirming(primary, input, confirming.before, confirming.after)]
      : []),
    ...(slots
      ? [
          ensureReplicationSlot(upstream.name, slotName, name),
          // Now that the slot keeps it, nothing of it can go any more.
          requireWalFor(name, upstream.name, inventory, { mustBeKept: true }),
        ]
      : []),
    repointStandby(name, upstream, former, input),
    awaitFollowing(name, upstream.name, primary),
    // It streams: from here on there is nothing to go back for.
    ...(rolesAfter !== null
      ? [
          together(
            wish.running
              .map((one) => dropStaleSlots(one, inventory, rolesAfter))
              .map((step) => forwardOnly(onceFollowing(step, name, upstream))),
          ),
        ]
      : former !== null && former.name !== upstream.name && wish.running.includes(former.name)
        ? [forwardOnly(dropReplicationSlot(former.name, slotName))]
        : []),
    ...(primaryWaitsForStandbys(inventory) && primary !== null && !stopsConfirming
      ? [together(announce), forwardOnly(ensureSettings(primary, input, confirming.after))]
      : []),
    ...(inventory.replication.mode !== 'async' && primary !== null
      ? [together(recorded.map((one) => ensureClusterRecord(one, { primary, members: wish.members })))]
      : []),
  ])
}

const forwardOnly = (step: Step): Step => ({ ...step, pointOfNoReturn: true })
