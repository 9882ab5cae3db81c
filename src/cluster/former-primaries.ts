import { configuredUpstream, nodeAt } from './configured-upstream.ts'
import type { NodeFacts } from './facts.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import type { NodeName } from './names.ts'
import { commonRecord, identifierOf, isForeign } from './record.ts'
import type { ObservedNode, Topology } from './topology.ts'

/**
 * How sure we are that a former primary cannot write. `absent`: its host answers, and where the inventory says that its data
 * directory is there is no instance.
 */
export const oldPrimaryStates = ['stopped', 'to-stop', 'unreachable', 'absent'] as const
export type OldPrimaryState = (typeof oldPrimaryStates)[number]

export interface OldPrimary {
  readonly node: NodeName
  readonly state: OldPrimaryState
}

/**
 * Nodes that may be, or may come up as, a primary beside the candidate: whoever answers as one; whoever led by the record
 * or the standbys' own settings, or was `told` to; and any node that runs or stopped without being a standby.
 */
export function formerPrimaries(
  inventory: Inventory,
  topology: Topology,
  candidate: NodeName,
  told?: NodeName,
): readonly OldPrimary[] {
  const led = ledUntilNow(inventory, topology, candidate, told)
  const survey = topology.nodes.map((node) => node.facts)
  // Beside one that leads, who else led is known; else whoever cannot be seen may have, where nobody's word is new enough.
  const isAnybody = topology.primary !== candidate && (led.size === 0 || isRecordOld(topology))
  return topology.nodes.flatMap((node): OldPrimary[] => {
    const { facts } = node
    const { name } = node.settings
    // What is not known to be ours is neither stopped nor fenced: it is somebody else's.
    if (name === candidate || isForeign(facts, survey)) return []
    if (facts.unreachable !== null) {
      return isAnybody || led.has(name) ? [{ node: name, state: 'unreachable' }] : []
    }
    if (facts.instance !== null) return facts.instance.isInRecovery ? [] : [{ node: name, state: 'to-stop' }]
    if (facts.postmaster?.isAlive === true) {
      return isSilentStandby(facts) && name !== told ? [] : [{ node: name, state: 'to-stop' }]
    }
    if (facts.dataDirectoryState !== 'instance' || identifierOf(facts) === undefined) {
      return led.has(name) ? [{ node: name, state: 'absent' }] : []
    }
    // One that was fenced stays in the plan: an interrupted promotion can be taken back, and it follows the newest primary. One
    // that was told to promote may still find the trigger file when it is started.
    if (facts.hasStandbySignal && facts.fence === null && name !== told) return []
    return [{ node: name, state: 'stopped' }]
  })
}

const standbyStates = ['in archive recovery', 'shut down in recovery', 'shut down']

/**
 * An instance that runs and says nothing is a standby where its pg_control, too, says that it came up as one, or that nothing
 * is written any more: a standby signal that was left in the data directory of a running primary makes none of it.
 */
const isSilentStandby = ({ hasStandbySignal, control }: NodeFacts): boolean =>
  hasStandbySignal && standbyStates.includes(control?.state ?? '')

/** Whether nothing can be left in an old primary's data directory that would keep it from coming up read-write. */
export const isUnfenceable = ({ isUnwritable, hasStandbySignal }: NodeFacts): boolean =>
  isUnwritable === true && !hasStandbySignal

/** How an old primary is found before it is fenced: taking the fencing back leaves it so. */
export function foundAs(
  { fence, instance, postmaster, hasStandbySignal }: NodeFacts,
  newPrimary: NodeName,
): { readonly wasRunning: boolean; readonly wasStandby: boolean } {
  const isAlive = postmaster?.isAlive === true
  const isRunning = instance?.isInRecovery === false || (isAlive && !hasStandbySignal)
  // What stands there was left by this very fencing, which was interrupted.
  if (fence?.newPrimary === newPrimary) {
    return { wasRunning: fence.wasRunning === true || isRunning, wasStandby: fence.wasStandby === true }
  }
  const wasStandby = !isRunning && hasStandbySignal && (isAlive || fence === null)
  return { wasRunning: isRunning, wasStandby }
}

/**
 * Whom the candidate is told to receive from. `hasFetched`: an earlier run had it follow one of the `reserves` for a moment;
 * then it is whom it followed before, as far as that can be known: who led.
 */
export function formerUpstream(
  inventory: Inventory,
  { nodes }: Topology,
  candidate: NodeSettings,
  fetched: { readonly reserves: readonly NodeName[]; readonly hasFetched: boolean },
): NodeName | null {
  const survey = nodes.map(({ facts }) => facts)
  const facts = survey.find(({ name }) => name === candidate.name)
  const told = facts === undefined ? null : configuredUpstream(facts)
  const name = told === null ? null : nodeAt(inventory, told.host, told.port)
  const isBorrowed = fetched.hasFetched && name !== null && fetched.reserves.includes(name)
  if (!isBorrowed || name === candidate.upstream) return name
  const recorded = commonRecord(survey)?.primary
  if (recorded !== undefined && recorded !== candidate.name) return recorded
  return survey.find(({ fence }) => fence?.newPrimary === candidate.name)?.name ?? name
}

/**
 * The middle node of a cascade: a member below which another one hangs as the inventory wishes. While the record is new, and says
 * that somebody else leads, that it hangs there is no sign that this one does.
 */
function isMiddle(
  name: NodeName,
  { settings }: ObservedNode,
  topology: Topology,
  candidate: NodeName,
): boolean {
  const record = commonRecord(topology.nodes.map(({ facts }) => facts))
  if (record === null || isRecordOld(topology)) return false
  // Whoever is on record as the primary, and is a standby, proves the record wrong.
  if (record.primary === candidate || record.primary === settings.name) return false
  return name !== record.primary && record.members.includes(name) && settings.upstream === name
}

/** A timeline has begun of which no record that can be read knows: who leads on it is not known. */
function isRecordOld({ nodes }: Topology): boolean {
  const record = commonRecord(nodes.map((node) => node.facts))
  return record !== null && nodes.some(({ facts }) => (facts.instance?.timeline ?? 0) > record.timeline)
}

/**
 * Who led last: by the newest record on any node, by where the standbys are told to receive from, and by what a promotion that
 * was not written down yet has left behind.
 */
export function ledUntilNow(
  inventory: Inventory,
  topology: Topology,
  candidate: NodeName,
  told?: NodeName,
): Set<string> {
  const led = new Set<string>(told === undefined || told === candidate ? [] : [told])
  const known = commonRecord(topology.nodes.map((node) => node.facts))
  for (const { facts } of topology.nodes) {
    // Of a node that accepts writes, or would, it is left over from what never came to pass.
    const isStandby = facts.instance === null ? facts.hasStandbySignal : facts.instance.isInRecovery
    const isNews =
      facts.fence !== null &&
      (isStandby || facts.dataDirectoryState !== 'instance') &&
      (known === null || known.timeline <= facts.fence.timeline)
    if (isNews && facts.fence?.newPrimary !== candidate) led.add(facts.fence?.newPrimary ?? '')
  }
  const record = topology.nodes
    .map((node) => node.facts.record)
    .filter((one) => one !== null)
    .toSorted((a, b) => b.generation - a.generation)[0]
  if (record !== undefined && record.primary !== candidate) led.add(record.primary)
  for (const node of topology.nodes) {
    if (node.facts.instance?.isInRecovery !== true) continue
    const upstream = configuredUpstream(node.facts)
    const name = upstream === null ? null : nodeAt(inventory, upstream.host, upstream.port)
    const isStandby = topology.nodes.find((one) => one.settings.name === name)?.role === 'standby'
    if (name !== null && name !== candidate && !isStandby && !isMiddle(name, node, topology, candidate))
      led.add(name)
  }
  return led
}
