import type { NodeName } from '../cluster/names.ts'
import { cannotBeUndone, inOrder, type Plan, together } from '../engine/step.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { endEarlierRejoin, endRejoinElsewhere } from '../steps/end-rejoin.ts'
import { forgetArchiveKey } from '../steps/ensure-archiving.ts'
import { announceConfirming, ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureSettings } from '../steps/ensure-configuration.ts'
import { ensureStartGuard } from '../steps/ensure-start-guard.ts'
import { forgetNode, purgeDataDirectory, requirePurgeable, stopStandby } from '../steps/remove-node.ts'
import { deleteDataDirectoryAside } from '../steps/replace-data-directory.ts'
import { dropReplicationSlot, reportLeftSlot } from '../steps/replication-slots.ts'
import { tellArchiveMembers } from '../steps/tell-archive-members.ts'

export interface RemoveStandbyWish {
  readonly standby: NodeName
  readonly slot: string
  readonly isReachable: boolean
  readonly isPurge: boolean
  readonly primary: NodeName
  /** Running members that stay. */
  readonly staying: readonly NodeName[]
  /** Members that stay and do not run, and whose hosts answer. */
  readonly stopped: readonly NodeName[]
  /** Everybody who stays a member, running or not. */
  readonly members: readonly NodeName[]
  /** Members that go on confirming commits in sync and quorum mode. */
  readonly confirming: readonly NodeName[]
}

/**
 * Takes a standby out of the cluster, also one whose host is dead: writes no longer wait for it, its slot no longer
 * holds WAL back, its passfile is gone where the host answers. Its data stays unless it is to be purged.
 */
export function removeStandby(input: ClusterInput, wish: RemoveStandbyWish): Plan {
  const { standby, slot, primary, staying, members, confirming } = wish
  const without = input.inventory.nodes.find(({ name }) => name === standby)?.applicationName
  return inOrder([
    ...(wish.isReachable && wish.isPurge ? [requirePurgeable(standby, primary)] : []),
    // First of all that changes anything: whoever waits for a dead synchronous standby is set free.
    together(announceConfirming(staying, primary, input, confirming)),
    ensureSettings(primary, input, confirming),
    ...(wish.isReachable ? [cannotBeUndone(stopStandby(standby, primary))] : []),
    together(staying.map((name) => cannotBeUndone(dropReplicationSlot(name, slot)))),
    ...wish.stopped.map((name) => reportLeftSlot(name, slot)),
    ...(wish.isReachable && wish.isPurge
      ? [
          cannotBeUndone(purgeDataDirectory(standby, primary)),
          deleteDataDirectoryAside(standby),
          endRejoinElsewhere(standby),
        ]
      : []),
    ...(wish.isReachable && !wish.isPurge ? [endEarlierRejoin(standby)] : []),
    together(staying.flatMap((name) => ensureStartGuard(name, input, members))),
    together(
      staying.map((name) =>
        ensureClusterRecord(name, {
          ...{ primary, members, removedSlot: slot },
          ...(without === undefined ? {} : { without }),
        }),
      ),
    ),
    ...(wish.isReachable ? [forgetNode(standby)] : []),
    ...forgetArchiveKey(input, standby, primary),
    ...tellArchiveMembers(input.inventory, primary, members),
  ])
}
