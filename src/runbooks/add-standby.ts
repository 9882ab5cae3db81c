import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import type { Roles } from '../cluster/roles.ts'
import { asOne, inOrder, type Plan, type Step, together } from '../engine/step.ts'
import { requireArchiveHost } from '../steps/archive-presence.ts'
import { awaitStreaming } from '../steps/await-streaming.ts'
import type { ClusterInput } from '../steps/cluster-input.ts'
import { copyConfigurationFiles } from '../steps/copy-configuration-files.ts'
import { endRejoinElsewhere } from '../steps/end-rejoin.ts'
import { ensureArchiveStream, requireArchiveStream } from '../steps/ensure-archive-stream.ts'
import { ensureArchiving } from '../steps/ensure-archiving.ts'
import { announceConfirming, ensureClusterRecord } from '../steps/ensure-cluster-record.ts'
import { ensureSettings } from '../steps/ensure-configuration.ts'
import { ensureDataDirectory } from '../steps/ensure-data-directory.ts'
import { ensureHbaLines } from '../steps/ensure-hba-lines.ts'
import { ensureMarkedAsBuilt, ensureNoFenceMark } from '../steps/ensure-mark.ts'
import { ensurePassfile, ensureReplicationRole } from '../steps/ensure-replication-role.ts'
import { ensureStandbySettings } from '../steps/ensure-standby-settings.ts'
import { ensureStartGuard } from '../steps/ensure-start-guard.ts'
import { remakeForeignSlots } from '../steps/foreign-slots.ts'
import {
  deleteDataDirectoryAside,
  moveDataDirectoryAside,
  onceMovedAside,
  requireReplaceableDataDirectory,
  whileOldIsAside,
} from '../steps/replace-data-directory.ts'
import {
  dropCopiedSlots,
  dropStaleSlots,
  ensureReplicationSlot,
  requireRoomForStandby,
} from '../steps/replication-slots.ts'
import { changeConfirming } from '../steps/repoint-standby.ts'
import { requireSameMajorVersion } from '../steps/require-binaries.ts'
import { requireClonableDataDirectory } from '../steps/require-data-directory.ts'
import {
  awaitReplayOf,
  requireDiskSpace,
  requireFreePort,
  requireLocales,
  requireTablespaceFolders,
} from '../steps/require-environment.ts'
import { requireLibraries } from '../steps/require-libraries.ts'
import { requireReplicationLogin } from '../steps/require-replication-login.ts'
import { requireWalFor } from '../steps/require-wal.ts'
import { restartForPendingSettings } from '../steps/restart-for-settings.ts'
import { awaitDownstream, type Downstream, keepSlotForDownstream } from '../steps/serve-downstream.ts'
import { startInstance } from '../steps/start-instance.ts'
import { takeBaseBackup } from '../steps/take-base-backup.ts'

/** One standby to build. */
export interface NewStandby {
  readonly node: NodeSettings
  /** Whom it will receive from. */
  readonly upstream: NodeSettings
  /** Whom it is cloned from. */
  readonly source: NodeSettings
  readonly isReclone: boolean
  /** It takes the place of an old standby, which is stopped for it. */
  readonly isReplacing?: boolean
  /** An earlier run of the same had begun: a whole clone that stands there is what it made. */
  readonly isResumed?: boolean
  /** A rejoin of it was cut off, and ends with this. */
  readonly endsRejoin?: boolean
  /** Where it is built anew: who is to receive from it afterwards, other than new standbys. */
  readonly downstream?: readonly NodeSettings[]
  /** Those of them that may come back to it by themselves, and are told of where they do not. */
  readonly awaited?: readonly NodeSettings[]
}

export interface AddStandbyWish {
  readonly primary: NodeSettings
  /** Nobody leads at the moment: `primary` is then the standby that they are cloned from, and who led stays on record. */
  readonly lastPrimary?: NodeName | undefined
  readonly standbys: readonly NewStandby[]
  /** Nodes that are part of the cluster afterwards, the primary and the new standbys included. */
  readonly members: readonly NodeName[]
  /** Those of them that may confirm commits in sync and quorum mode: not one that is fenced, or writes would wait for it. */
  readonly confirming: readonly NodeName[]
  /** Those that confirm now and must not be waited for any more: they are going to receive from another standby. */
  readonly confirmingUntilNow: readonly NodeName[]
  /** Whom everybody receives from afterwards. */
  readonly roles: Roles
  /** Members that run already: their pg_hba.conf and records are kept up to date. */
  readonly running: readonly NodeName[]
}

/**
 * Adds standbys: clones each from the primary (or another standby) with pg_basebackup and starts streaming, several at
 * the same time. The primary keeps serving; its only changes are a role, lines in pg_hba.conf and a slot for each.
 * While nobody leads, a cascaded standby can be cloned from the standby that it is to receive from.
 * All preconditions come first. A clone that fails is taken back; one that was killed is found again by the next run. What is
 * replaced is deleted last of all; from then on nothing of it is taken back.
 */
export function addStandby(input: ClusterInput, wish: AddStandbyWish): Plan {
  const { primary, standbys, members, confirming, confirmingUntilNow, running, roles } = wish
  const isLed = wish.lastPrimary === undefined
  const everybody = [...new Set([...running, ...standbys.map(({ node }) => node.name)])]
  const { replication } = input.inventory
  const waves = wavesOf(standbys)
  const isNew = (node: NodeSettings) => standbys.some((standby) => standby.node.name === node.name)
  return inOrder([
    ...standbys.flatMap(({ node }) => requireArchiveHost(input, node, primary.name)),
    // First what is quick to answer: to measure what a killed clone left may take minutes.
    asOne(
      standbys.flatMap(({ node, source }) => [
        requireSameMajorVersion(node.name, isNew(source) ? primary.name : source.name),
        requireFreePort(node.name),
      ]),
    ),
    asOne(
      standbys.flatMap((standby) =>
        preconditions(standby, isNew(standby.source) ? primary : standby.source, primary),
      ),
    ),
    ...standbys
      .filter(({ isReclone }) => !isReclone)
      .map(({ node, upstream }) => requireWalFor(node.name, upstream.name, input.inventory)),
    ...roomChecks(waves[0] ?? [], replication.slots),
    ...(isLed
      ? [
          ...requireArchiveStream(input, primary),
          ensurePassfile(primary.name, replication, primary.name),
          // Before the role gets a new password, those who log in with it have it.
          together(
            running
              .filter((name) => name !== primary.name)
              .map((name) => ensurePassfile(name, replication, primary.name)),
          ),
          ensureReplicationRole(primary.name, replication),
        ]
      : []),
    together(running.map((name) => ensureHbaLines(name, input))),
    ...(confirmingUntilNow.some((name) => !confirming.includes(name))
      ? [
          changeConfirming(
            primary.name,
            input,
            confirmingUntilNow,
            confirmingUntilNow.filter((name) => confirming.includes(name)),
          ),
        ]
      : []),
    ...waves.flatMap((wave) => [
      ...(replication.slots
        ? wave.map(({ node, upstream }) => ensureReplicationSlot(upstream.name, node.slotName, node.name))
        : []),
      together(wave.map((standby) => inOrder(cloneSteps(input, wish, standby)))),
    ]),
    ...(isLed
      ? [
          together(announceConfirming(everybody, primary.name, input, confirming)),
          ensureSettings(
            primary.name,
            input,
            confirming.filter((name) => name !== primary.name),
            { tellsWaiting: true },
          ),
        ]
      : []),
    together(
      everybody.map((name) => {
        const isReplaced = standbys.some((one) => one.node.name === name && one.isReclone)
        return dropStaleSlots(name, input.inventory, roles, { isReplaced })
      }),
    ),
    // Last of all that may be taken back: a guard that asks for a node which was never built would wait for it.
    together(running.flatMap((name) => ensureStartGuard(name, input, members))),
    together(
      everybody.map((name) =>
        ensureClusterRecord(name, { primary: wish.lastPrimary ?? primary.name, members }),
      ),
    ),
    ...(isLed ? ensureArchiveStream(input, primary, members) : []),
    // What the new standbys replaced goes last of all, and only while somebody leads whom they have everything from.
    ...(isLed
      ? standbys.flatMap(({ node: { name }, isReclone, isReplacing, endsRejoin }) => [
          ...(endsRejoin ? [remakeForeignSlots(name, input.inventory, roles, { isReplaced: false })] : []),
          deleteDataDirectoryAside(name, { isReplacing: isReclone && isReplacing }),
          endRejoinElsewhere(name),
        ])
      : []),
    together(
      standbys.flatMap((standby) =>
        downstreamOf(standby, primary, standby.awaited).map((one) => awaitDownstream(one, input.inventory)),
      ),
    ),
  ])
}

function downstreamOf(
  { node }: NewStandby,
  primary: NodeSettings,
  names: readonly NodeSettings[] = [],
): Downstream[] {
  return names.map((one) => ({ node: one, upstream: node.name, primary: primary.name }))
}

/** Those of one wave are built side by side; one that follows another new standby waits for the wave of that one. */
function wavesOf(standbys: readonly NewStandby[]): readonly (readonly NewStandby[])[] {
  if (standbys.length === 0) return []
  const waits = ({ upstream }: NewStandby) => standbys.some(({ node }) => node.name === upstream.name)
  const wave = standbys.filter((standby) => !waits(standby))
  return wave.length === 0 ? [standbys] : [wave, ...wavesOf(standbys.filter(waits))]
}

function preconditions(
  { node, isReclone, isResumed }: NewStandby,
  source: NodeSettings,
  primary: NodeSettings,
): Step[] {
  return [
    isReclone
      ? requireReplaceableDataDirectory(node.name, primary.name, { isResumed })
      : requireClonableDataDirectory(node.name, source.name),
    requireDiskSpace(node.name, source.name, { isReclone, isResumed }),
    requireTablespaceFolders(node.name, source.name, isReclone),
    requireLocales(node.name, source.name, isReclone),
    requireLibraries(node.name, source.name, isReclone),
  ]
}

/** `isReclone`: what was in its data directory before is replaced. */
type Started = Pick<NewStandby, 'node' | 'upstream' | 'isReclone'>

/** Several new standbys of one upstream need room there together. */
function roomChecks(standbys: readonly NewStandby[], hasSlots: boolean): Step[] {
  const upstreams = [...new Set(standbys.map(({ upstream }) => upstream.name))]
  return upstreams.map((upstream) => {
    const own = standbys.filter((standby) => standby.upstream.name === upstream)
    const source = own[0]?.source.name ?? upstream
    return requireRoomForStandby(
      upstream,
      source,
      own.map(({ node }) => node),
      hasSlots,
    )
  })
}

function cloneSteps(
  input: ClusterInput,
  { primary, members, confirming, standbys }: AddStandbyWish,
  standby: NewStandby,
): Plan[] {
  const { node, upstream, source, isReclone, isReplacing, isResumed } = standby
  const { name } = node
  const { replication } = input.inventory
  const slot = replication.slots ? node.slotName : undefined
  // One that is built by the same command has the files of the primary by then.
  const copiedFrom = standbys.some((one) => one.node.name === source.name) ? primary.name : source.name
  const isFromStandby = source.name !== upstream.name && slot !== undefined
  const move = moveDataDirectoryAside(name, primary.name, { isResumed })
  const isInPlaceOfOld = isReclone && isReplacing === true
  const beside = (step: Step) => (isInPlaceOfOld ? whileOldIsAside(step) : step)
  const inside = (step: Step) => (isInPlaceOfOld ? onceMovedAside(whileOldIsAside(step), move) : step)
  return [
    ensurePassfile(name, replication, primary.name),
    requireReplicationLogin(name, upstream, input.inventory),
    ...(source.name === upstream.name ? [] : [requireReplicationLogin(name, source, input.inventory)]),
    ...(isFromStandby ? [awaitReplayOf(source.name, upstream.name, slot)] : []),
    ...(isReclone ? [move] : []),
    ...[...copySteps(input, standby), copyConfigurationFiles(name, source.name)].map(inside),
    asOne([
      ...ensureStartGuard(name, input, members).map(beside),
      inOrder(standbyConfiguration(input, primary, standby, confirming, copiedFrom).map(inside)),
    ]),
    ...startSteps(primary, standby).map(inside),
    ...(replication.slots
      ? downstreamOf(standby, primary, standby.downstream).map(keepSlotForDownstream).map(inside)
      : []),
  ]
}

/** From an empty place for the data directory to a whole copy of the source in it. */
export function copySteps(
  { inventory }: ClusterInput,
  { node, upstream, source }: Pick<NewStandby, 'node' | 'upstream' | 'source'>,
): Step[] {
  const slot = inventory.replication.slots && source.name === upstream.name ? node.slotName : undefined
  return [
    ensureDataDirectory(node.name, 'cloning', source.name),
    takeBaseBackup({ standby: node.name, source, slot, inventory }),
  ]
}

/** From a whole data directory, whose history is the upstream's, to a standby that streams and is known as one. */
export function standbySteps(
  input: ClusterInput,
  primary: NodeSettings,
  standby: Started,
  confirming: readonly NodeName[],
): Step[] {
  return [...standbyConfiguration(input, primary, standby, confirming), ...startSteps(primary, standby)]
}

/** From everything rendered to a standby that streams and is known as one. */
export function startSteps(primary: NodeSettings, { node, upstream, isReclone }: Started): Step[] {
  const { name } = node
  return [
    restartForPendingSettings(name),
    startInstance(name),
    awaitStreaming(name, upstream.name),
    dropCopiedSlots(name, primary.name, { isReplaced: isReclone }),
    ensureMarkedAsBuilt(name),
    ensureNoFenceMark(name),
  ]
}

/** Everything that makes it a standby when it is started. */
export function standbyConfiguration(
  input: ClusterInput,
  primary: NodeSettings,
  { node, upstream }: Pick<NewStandby, 'node' | 'upstream'>,
  confirming: readonly NodeName[],
  copiedFrom?: NodeName,
): Step[] {
  const { name } = node
  const copy = copiedFrom === undefined ? {} : { copiedFrom }
  return [
    ...ensureArchiving(input, node, { memberWith: primary.name }),
    ensureSettings(
      name,
      input,
      confirming.filter((member) => member !== name),
      { like: primary.name, ...copy, ...(copiedFrom === undefined ? {} : { tellsWaiting: true }) },
    ),
    ensureHbaLines(name, input, copy),
    ensureStandbySettings(name, upstream, input),
  ]
}
