import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { inOrder, type Plan, together } from '../engine/step.ts'
import { ensureHistoryArchived } from '../steps/archive-history.ts'
import { archiveWaiting } from '../steps/archive-owed.ts'
import { requireArchiveHost } from '../steps/archive-presence.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { ensureArchiveStream, requireArchiveStream } from '../steps/ensure-archive-stream.ts'
import { ensureArchiving } from '../steps/ensure-archiving.ts'
import { announceConfirming, ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureSettings } from '../steps/ensure-configuration.ts'
import { ensureDataDirectory, ensureInitialised } from '../steps/ensure-data-directory.ts'
import { ensureHbaLines } from '../steps/ensure-hba-lines.ts'
import { ensureMarkedAsBuilt } from '../steps/ensure-mark.ts'
import { ensurePassfile, ensureReplicationRole } from '../steps/ensure-replication-role.ts'
import { ensureStartGuard } from '../steps/ensure-start-guard.ts'
import { requireBinaries } from '../steps/require-binaries.ts'
import { requireDataDirectoryForPrimary } from '../steps/require-data-directory.ts'
import { requireFreePort } from '../steps/require-environment.ts'
import { startInstance } from '../steps/start-instance.ts'

/** Where a primary is made anew, it is the only one; where this is run again, there are others. */
export interface InitWish {
  /** Who belongs to the cluster. */
  readonly members: readonly NodeName[]
  /** What the cluster's record has at least, to win over those that an earlier cluster left on other nodes. */
  readonly generation?: number | undefined
  /** Standbys that are to confirm commits in sync and quorum mode. */
  readonly confirming: readonly NodeName[]
  /** Members that run as standbys. */
  readonly running: readonly NodeName[]
}

/**
 * Makes a node the cluster's primary: initialises its data directory, renders its configuration, starts it.
 * Nothing but an empty (or missing) data directory is used; every step can be repeated, and until it is marked as built a failure
 * takes back what was made.
 */
export function initPrimary(
  input: ClusterInput,
  node: NodeSettings,
  { members, generation, confirming, running }: InitWish = {
    members: [node.name],
    confirming: [],
    running: [],
  },
): Plan {
  const { name } = node
  const { replication } = input.inventory
  return inOrder([
    requireBinaries(name, node.postgres.version),
    requireDataDirectoryForPrimary(name),
    requireFreePort(name),
    ...requireArchiveHost(input, node),
    ...requireArchiveStream(input, node),
    ensureDataDirectory(name, 'initialising'),
    ensureInitialised(name),
    ...ensureArchiving(input, node),
    together(announceConfirming(running.length === 0 ? [] : [name, ...running], name, input, confirming)),
    ensureSettings(name, input, confirming, { tellsWaiting: true }),
    ensureHbaLines(name, input),
    // That nobody else leads was seen under the lock: a cluster that was stopped as a whole has nobody who could say so.
    startInstance(name, { isToLead: true }),
    ensurePassfile(name, replication, name),
    // Before the role gets a new password, those who log in with it have it.
    together(running.map((one) => ensurePassfile(one, replication, name))),
    ensureReplicationRole(name, replication),
    ...ensureStartGuard(name, input, members),
    ensureMarkedAsBuilt(name, { isNewPrimary: true, mustLead: true }),
    ensureClusterRecord(name, { primary: name, members, generation }),
    ...ensureArchiveStream(input, node, members),
    ...archiveWaiting(input, node),
    ...ensureHistoryArchived(input, node),
  ])
}
