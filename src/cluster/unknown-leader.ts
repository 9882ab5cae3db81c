import { ReplctlError } from '../errors.ts'
import { configuredUpstream, nodeAt } from './configured-upstream.ts'
import type { NodeFacts, PeerAnswer, Survey } from './facts.ts'
import { ledUntilNow } from './former-primaries.ts'
import type { Inventory } from './inventory.ts'
import { isKnownMember } from './judge-unknown-member.ts'
import type { NodeName } from './names.ts'
import { commonRecord } from './record.ts'
import { isRunningStandby, nodeOf, type Topology, timelineOf } from './topology.ts'

/** Where a running standby is told to receive from, and no node of the inventory is known by it. */
export interface UnknownAddress {
  readonly standby: NodeName
  readonly host: string
  readonly port: number
}

/** Who may lead the cluster and is no node of the inventory: an older copy of it, say, lacks the primary. */
export interface UnknownLeader {
  /** Nodes that led, or were told to, by the records and marks. */
  readonly names: readonly string[]
  /** Nobody that the inventory knows is known to have led. */
  readonly isAnybody: boolean
  readonly addresses: readonly UnknownAddress[]
}

/** `told`: whom operations that stopped part-way had told to promote. Null: there is none. */
export function unknownLeader(
  inventory: Inventory,
  topology: Topology,
  candidate: NodeName,
  told: readonly string[] = [],
): UnknownLeader | null {
  const survey = topology.nodes.map(({ facts }) => facts)
  const led = ledUntilNow(inventory, topology, candidate)
  const addresses = unknownAddresses(inventory, survey)
  const unknown = [...new Set([...led, ...told])].filter((name) => !isKnownMember(inventory, survey, name))
  const names = mayBeRenamed(inventory, survey) ? [] : unknown
  // Whoever answers as a primary is dealt with as one, and may be what an unknown address leads to.
  if (names.length === 0 && (addresses.length === 0 || isBeingStopped(survey))) return null
  return { names, isAnybody: led.size === 0, addresses }
}

const told = (name: string) => `By what the nodes keep, ${name} leads, or was told to`

/** `host` and `port` of conninfo may name several servers. */
function unknownAddresses(inventory: Inventory, survey: Survey): UnknownAddress[] {
  return survey.filter(isRunningStandby).flatMap((facts) => {
    const told = configuredUpstream(facts)
    if (told === null || told.host.startsWith('/')) return []
    return told.host
      .split(',')
      .filter((host) => host !== '' && nodeAt(inventory, host, told.port) === null)
      .map((host) => ({ standby: facts.name, host, port: told.port }))
  })
}

/** A node whose own mark cannot be read, of a name that is on no record, and from which a standby is told to receive. */
function mayBeRenamed(inventory: Inventory, survey: Survey): boolean {
  const members = commonRecord(survey)?.members ?? []
  const told = survey.filter(isRunningStandby).map(configuredUpstream)
  return survey.some(
    ({ name, unreachable }) =>
      unreachable !== null &&
      !members.includes(name) &&
      told.some((one) => one !== null && nodeAt(inventory, one.host, one.port) === name),
  )
}

const isBeingStopped = (survey: Survey) =>
  survey.some(({ instance, postmaster }: NodeFacts) =>
    instance === null ? postmaster?.isAlive === true : !instance.isInRecovery,
  )

/**
 * Why nobody is to be promoted beside it, by what answers at its addresses: what leads there is never gone past, and what cannot be
 * known only at the operator's own risk. `what`: the act that is refused, as in "refused to promote pg2". Null: nothing speaks against it.
 */
export function refusalBesideUnknownLeader(
  { path }: Inventory,
  topology: Topology,
  leader: UnknownLeader,
  answers: readonly (PeerAnswer & { readonly at: string })[],
  {
    candidate,
    what,
    allowSplitBrain,
  }: { readonly candidate: NodeName; readonly what: string; readonly allowSplitBrain: boolean },
): ReplctlError | null {
  const newest = Math.max(0, ...topology.nodes.map(({ facts }) => timelineOf(facts) ?? 0))
  const own = nodeOf(topology, candidate).facts.instance?.timeline ?? newest
  const [name] = leader.names
  const who = name === undefined ? 'the server' : name
  const hint = `Put ${name ?? 'it'} into ${path}, so that replctl can stop it; then look with "replctl status".`
  const isItsPlace = name !== undefined || leader.isAnybody
  for (const { at, role, from, timeline, said } of answers) {
    if (role === 'primary' || (timeline ?? 0) > own) {
      return new ReplctlError(
        'primary-alive',
        role === 'primary'
          ? `refused to ${what}: ${at} accepts writes, and the inventory lacks it`
          : `refused to ${what}: ${at} follows a newer primary, and the inventory lacks it`,
        {
          detail: `${from} asked there, and heard that it is a ${role} on timeline ${timeline}.${
            name === undefined || name === at ? '' : ` ${told(name)}.`
          } Another primary beside it would make two writers.`,
          hint,
          node: candidate,
        },
      )
    }
    if (role === 'unknown' && (isItsPlace || !allowSplitBrain)) {
      return new ReplctlError(
        isItsPlace ? 'primary-alive' : 'primary-unproven',
        `refused to ${what}: ${who} at ${at} is alive, and the inventory lacks it`,
        { detail: `${from} asked it whether it leads: ${said}`, hint, node: candidate },
      )
    }
  }
  if (!isItsPlace || allowSplitBrain) return null
  const places = [...new Set(leader.addresses.map(({ host, port }) => `${host}:${port}`))].join(', ')
  return new ReplctlError(
    'primary-unproven',
    `cannot prove that the old primary ${name ?? places} is stopped: the inventory lacks it`,
    {
      detail: `${name === undefined ? 'The standbys are told to receive from there' : told(name)}, and no node of ${path} is known by that. It may still accept writes.`,
      hint: `Put ${name ?? 'it'} into the inventory. If you know that it is off, and stays off: --allow-split-brain.`,
      node: candidate,
    },
  )
}
