import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { inOrder, type Plan } from '../engine/step.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { ensureArchiveStream, requireArchiveStream } from '../steps/ensure-archive-stream.ts'
import { ensureArchiving } from '../steps/ensure-archiving.ts'
import { ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureHbaLines, ensureSettings } from '../steps/ensure-configuration.ts'
import { ensureDataDirectory, ensureInitialised } from '../steps/ensure-data-directory.ts'
import { ensureMarkedAsBuilt } from '../steps/ensure-mark.ts'
import { ensurePassfile, ensureReplicationRole } from '../steps/ensure-replication-role.ts'
import { ensureStartGuard } from '../steps/ensure-start-guard.ts'
import { requireBinaries } from '../steps/require-binaries.ts'
import { requireDataDirectoryForPrimary } from '../steps/require-data-directory.ts'
import { requireFreePort } from '../steps/require-environment.ts'
import { startInstance } from '../steps/start-instance.ts'

/**
 * Makes a node the cluster's primary: initialises its data directory, renders its configuration, starts it.
 * Nothing but an empty (or missing) data directory is used; every step can be repeated, and until it is marked as built a failure
 * takes back what was made. `members`: who belongs to the cluster already, where this is run again.
 */
export function initPrimary(
  input: ClusterInput,
  node: NodeSettings,
  members: readonly NodeName[] = [node.name],
): Plan {
  const { name } = node
  const { replication } = input.inventory
  return inOrder([
    requireBinaries(name, node.postgres.version),
    requireDataDirectoryForPrimary(name),
    requireFreePort(name),
    ...requireArchiveStream(input, name),
    ensureDataDirectory(name, 'initialising'),
    ensureInitialised(name),
    ...ensureArchiving(input, node),
    ensureSettings(
      name,
      input,
      members.filter((member) => member !== name),
    ),
    ensureHbaLines(name, input),
    startInstance(name),
    ensurePassfile(name, replication, name),
    ensureReplicationRole(name, replication),
    ...ensureStartGuard(name, input, members),
    ensureMarkedAsBuilt(name, { isNewPrimary: true }),
    ensureClusterRecord(name, { primary: name, members }),
    ...ensureArchiveStream(input, name),
  ])
}
