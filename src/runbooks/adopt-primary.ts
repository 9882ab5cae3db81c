import type { NodeSettings } from '../cluster/inventory.ts'
import { inOrder, type Plan, together } from '../engine/step.ts'
import { ensureHistoryArchived } from '../steps/archive-history.ts'
import { requireArchiveHost } from '../steps/archive-presence.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { ensureArchiveStream, requireArchiveStream } from '../steps/ensure-archive-stream.ts'
import { ensureArchiving } from '../steps/ensure-archiving.ts'
import { announceConfirming, ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureSettings } from '../steps/ensure-configuration.ts'
import { ensureHbaLines } from '../steps/ensure-hba-lines.ts'
import { ensureMarkedAsBuilt } from '../steps/ensure-mark.ts'
import { ensurePassfile, ensureReplicationRole } from '../steps/ensure-replication-role.ts'
import { ensureStartGuard } from '../steps/ensure-start-guard.ts'
import { forgetInstance, rememberInstance, takesBackRole } from '../steps/remember-instance.ts'
import { requireAdoptableInstance, requireSettingsNotOverridden } from '../steps/require-adoptable.ts'
import { requireBinaries } from '../steps/require-binaries.ts'
import { requireFreePort } from '../steps/require-environment.ts'
import { requireForeignRoleMatches } from '../steps/require-foreign-role.ts'
import { ensureSettingsInForce, requireSoundConfiguration } from '../steps/restart-for-settings.ts'
import { startInstance } from '../steps/start-instance.ts'
import type { InitWish } from './init-primary.ts'

/**
 * Takes over an instance that replctl did not make, running or stopped, and makes it the cluster's primary. Its data is
 * not touched; the operator's own files stay where they are, and get one line (postgresql.conf) and one marked block
 * (pg_hba.conf). What it has and is good enough stays. A running instance is reloaded, and restarted only where a changed
 * setting needs that. Until the end a failure puts the files back as they were, and the instance with them.
 */
export function adoptPrimary(
  input: ClusterInput,
  node: NodeSettings,
  { members, generation, confirming, running }: InitWish = {
    members: [node.name],
    confirming: [],
    running: [],
  },
): Plan {
  const { name } = node
  const wish = { ...input, standbys: confirming }
  const { replication } = input.inventory
  return inOrder([
    requireAdoptableInstance(node),
    requireBinaries(name, node.postgres.version),
    requireFreePort(name),
    ...requireArchiveHost(input, node),
    ...requireArchiveStream(input, node),
    requireSettingsNotOverridden(node, wish),
    requireForeignRoleMatches(node, replication),
    rememberInstance(node, wish),
    ...ensureArchiving(input, node),
    together(announceConfirming(running.length === 0 ? [] : [name, ...running], name, input, confirming)),
    ensureSettings(name, input, confirming, { isAdopting: true }),
    requireSoundConfiguration(node),
    startInstance(name),
    ensureHbaLines(name, input),
    ensureSettingsInForce(node, wish),
    ensurePassfile(name, replication, name),
    together(running.map((one) => ensurePassfile(one, replication, name))),
    takesBackRole(ensureReplicationRole(name, replication), replication),
    ...ensureStartGuard(name, input, members),
    ensureMarkedAsBuilt(name),
    ensureClusterRecord(name, { primary: name, members, generation }),
    forgetInstance(node),
    ...ensureArchiveStream(input, node, members),
    ...ensureHistoryArchived(input, node),
  ])
}
