import { ReplctlError } from '../errors.ts'
import { standbyParityParameters } from '../postgres/settings.ts'
import { archivingFault } from './archiving-fault.ts'
import { configuredApplicationName } from './configured-upstream.ts'
import { slotFinding } from './diagnose-slots.ts'
import { insufficientSettings, replayPaused } from './insufficient-settings.ts'
import type { Inventory } from './inventory.ts'
import { holds, keepersOf, neededLsn } from './kept-wal.ts'
import type { NodeName } from './names.ts'
import type { Problem } from './problem.ts'
import { segmentSizeOf } from './segment-size.ts'
import {
  delayMsOf,
  expectedUpstream,
  isReceiving,
  type ObservedNode,
  placeFor,
  type Topology,
} from './topology.ts'
import { comeBackHint } from './way-back.ts'

export type Finding = readonly [ReplctlError, Problem['severity']?]

/** What is not as it should be with a standby that runs. */
export function diagnoseStandby(
  inventory: Inventory,
  topology: Topology,
  node: ObservedNode,
  survey: readonly ObservedNode['facts'][],
): Finding[] {
  const { settings, facts } = node
  const name = settings.name
  const findings: Finding[] = []
  const { record } = survey.map((one) => ({ record: one.record })).toSorted(byGeneration)[0] ?? {
    record: null,
  }
  const isUnderWay = survey.some((one) => one.journal !== null)
  if (record !== null && !isUnderWay && !record.members.includes(name)) {
    findings.push([
      new ReplctlError('orphan-standby', `${name} was removed from the cluster and still runs as a standby`, {
        hint: `Stop it with "replctl remove-standby ${name}", or take it in again with "replctl add-standby ${name}".`,
        node: name,
      }),
    ])
  }
  if (facts.instance?.isReplayPaused === true) {
    const paused = replayPaused(facts)
    const isLow = insufficientSettings(facts).length > 0
    const both = ` To have both done: replctl add-standby ${name}`
    findings.push([isLow ? paused.with({ hint: `${paused.hint}${both}` }) : paused])
  }
  const slot = slotFinding(inventory, node, topology)
  if (slot !== null) findings.push(slot)
  if (topology.primary === null) return findings
  const expected = expectedUpstream(inventory, settings, topology.primary, survey)
  const actual = node.upstream ?? node.foreignUpstream
  // Nobody is to be put below one that gets nothing itself: that one is told of.
  const isPassedOver =
    actual === topology.primary && placeFor(inventory, settings, topology.primary, topology) === actual
  if (actual !== expected && !isPassedOver) findings.push(wrongUpstream(node, expected, survey))
  else if (node.state === 'disconnected' || node.state === 'archive')
    findings.push(notStreaming(inventory, topology, node, expected))
  const primaryTimeline = survey.find((one) => one.name === topology.primary)?.instance?.timeline
  if (
    primaryTimeline !== undefined &&
    facts.instance !== null &&
    facts.instance.timeline !== primaryTimeline &&
    node.state === 'streaming' &&
    actual === expected
  ) {
    findings.push([
      new ReplctlError('wrong-timeline', `${name} is on another timeline than the primary`, {
        detail: `${name} is on timeline ${facts.instance.timeline}, ${topology.primary} on ${primaryTimeline}.`,
        hint: comeBackHint(facts, primaryOf(topology, survey)),
        node: name,
      }),
      'warning',
    ])
  }
  if (isUnknownBySender(node, topology)) findings.push([otherName(node)])
  if (delayMsOf(node) !== settings.delayMs) findings.push([otherDelay(node)])
  findings.push(...parityFindings(topology, node, survey))
  const fault = archivingFault(inventory, facts)
  if (fault !== null) findings.push(fault)
  const { maxCandidateLagBytes } = inventory.replication
  // Whatever else is wrong tells why.
  if (findings.length === 0 && isBehind(node, maxCandidateLagBytes)) {
    findings.push([tooFarBehind(node, maxCandidateLagBytes), 'warning'])
  }
  return findings
}

const byGeneration = (
  a: { record: { generation: number } | null },
  b: { record: { generation: number } | null },
) => (b.record?.generation ?? -1) - (a.record?.generation ?? -1)

function parityFindings(
  topology: Topology,
  node: ObservedNode,
  survey: readonly ObservedNode['facts'][],
): Finding[] {
  const primary = survey.find((one) => one.name === topology.primary)?.instance
  const low = standbyParityParameters.filter((name) => {
    const [own, needed] = [node.facts.instance?.settings[name]?.value, primary?.settings[name]?.value]
    return own !== undefined && needed !== undefined && Number(own) < Number(needed)
  })
  return low.map((name) => [
    new ReplctlError('settings-too-low', `${name} is lower on ${node.settings.name} than on the primary`, {
      detail: `It is ${node.facts.instance?.settings[name]?.value} there and ${primary?.settings[name]?.value} on ${topology.primary}.`,
      hint: `A standby stops replaying when such a setting is too low. Raise it on ${node.settings.name} and restart it.`,
      node: node.settings.name,
    }),
  ])
}

/** So late is none that keeps up, however much is written. */
const lateSeconds = 10

/** It streams, replays at once by wish, and yet is so far behind that a switchover to it would be refused. */
const isBehind = (node: ObservedNode, mostBytes: number): boolean =>
  node.state === 'streaming' &&
  node.settings.delayMs === 0 &&
  delayMsOf(node) === 0 &&
  (node.lagBytes ?? 0) > mostBytes &&
  (node.lagSeconds ?? 0) >= lateSeconds

function tooFarBehind(
  { settings: { name }, lagBytes, lagSeconds }: ObservedNode,
  mostBytes: number,
): ReplctlError {
  return new ReplctlError('lag-too-high', `${name} is ${lagBytes} bytes of WAL behind`, {
    detail: `The last transaction that it replayed is ${Math.round(lagSeconds ?? 0)} s old. replication.max_candidate_lag is ${mostBytes} bytes: a switchover to it would be refused.`,
    hint: `Look again whether it catches up: replctl status. A long query on ${name}, or a slow link or disk, holds it up.`,
    node: name,
  })
}

function otherDelay(node: ObservedNode): ReplctlError {
  const { name, delayMs } = node.settings
  const source = node.facts.instance?.settings.recovery_min_apply_delay?.sourceFile ?? null
  return new ReplctlError(
    'setting-overridden',
    `${name} replays ${delayMsOf(node) / 1000} s late, not ${delayMs / 1000} s`,
    {
      detail: `recovery_min_apply_delay is ${delayMsOf(node)} ms there${source === null ? '' : `, by ${source}`}; its delay in the inventory is ${delayMs / 1000} s.`,
      hint: `Have it set: replctl add-standby ${name}`,
      node: name,
    },
  )
}

/** It streams, and whoever sends to it knows it by another name: nobody waits for what it confirms. */
const isUnknownBySender = (
  { state, connection, upstream, facts, settings }: ObservedNode,
  { nodes }: Topology,
) =>
  state === 'streaming' &&
  connection === null &&
  configuredApplicationName(facts) !== settings.applicationName &&
  nodes.some((one) => one.settings.name === upstream && one.facts.instance !== null)

function otherName({ facts, settings: { name, applicationName }, upstream }: ObservedNode): ReplctlError {
  const used = configuredApplicationName(facts)
  const source = facts.instance?.settings.primary_conninfo?.sourceFile ?? null
  return new ReplctlError('setting-overridden', `${name} does not give ${upstream} its own name`, {
    detail: `primary_conninfo${source === null ? '' : `, by ${source},`} has ${used === undefined ? 'no application_name' : `application_name=${used}`}; it ought to be ${applicationName}. Commits do not wait for ${name}, and no switchover goes to it.`,
    hint: `Have it set: replctl add-standby ${name}`,
    node: name,
  })
}

function wrongUpstream(
  node: ObservedNode,
  expected: NodeName,
  survey: readonly ObservedNode['facts'][],
): Finding {
  const { name, upstream: wish } = node.settings
  const actual = node.upstream ?? node.foreignUpstream ?? 'none'
  const wished = survey.find((one) => one.name === wish)
  const hint = `replctl follow ${name} --upstream ${expected}`
  // We cannot reach the wished upstream; the standby can.
  if (wished !== undefined && wished.unreachable !== null && actual === wish && node.state === 'streaming') {
    return [
      new ReplctlError('wrong-upstream', `${name} receives from ${wish}, which cannot be reached from here`, {
        detail: `Its walreceiver says that it streams; it may be that it has not noticed yet.`,
        hint: `If ${wish} is lost: ${hint}`,
        node: name,
      }),
      'warning',
    ]
  }
  const lost =
    wish !== undefined && wish !== expected ? ` The inventory wishes ${wish}, which does not run.` : ''
  return [
    new ReplctlError('wrong-upstream', `${name} does not receive from ${expected}`, {
      detail: `Expected upstream: ${expected}; actual upstream: ${actual}.${lost}`,
      hint: `Point it at the right one: ${hint}`,
      node: name,
    }),
  ]
}

function notStreaming(
  inventory: Inventory,
  topology: Topology,
  node: ObservedNode,
  expected: NodeName,
): Finding {
  const error = whyNotStreaming(node, expected)
  if (isReceiving(node.facts)) {
    const { name } = node.settings
    const silence = Math.round(node.facts.instance?.receiver?.silenceSeconds ?? 0)
    return [
      error.with({
        detail: `${error.detail} Its walreceiver believes that it streams, and has heard nothing for ${silence} s; ${node.upstream} has no connection of it.`,
        hint: `Look at the network between ${name} and ${node.upstream}. "replctl doctor ${name}" tries the login for real.`,
      }),
    ]
  }
  const unkept = inventory.archive === undefined ? unkeptWal(inventory, topology, node, expected) : null
  if (unkept !== null) return [error.with(unkept)]
  if (node.facts.instance?.isAwaitingDelay !== true) return [error]
  const { slots } = inventory.replication
  return [
    error.with({
      detail: `It holds a transaction back on purpose (delay of ${delayMsOf(node) / 1000} s). PostgreSQL asks ${expected} for more WAL only after that.`,
      hint: slots
        ? `Nothing is to be done: its slot on ${expected} keeps the WAL.`
        : `Nothing is to be done, unless ${expected} has removed that WAL by then: replication.slots is off, so wal_keep_size alone keeps it there.`,
    }),
    'warning',
  ]
}

/** What it needs next is not kept where it will ask for it. Whether it is there all the same shows when it is asked for. */
function unkeptWal(inventory: Inventory, { nodes }: Topology, node: ObservedNode, expected: NodeName) {
  const { settings, facts } = node
  const { name } = settings
  const survey = nodes.map((one) => one.facts)
  const source = survey.find((one) => one.name === expected)
  const needed = neededLsn(settings, facts, survey)
  const kept = node.slot?.restartLsn ?? null
  if (!inventory.replication.slots || source?.instance == null || needed === null || kept === null)
    return null
  if (holds(kept, needed, segmentSizeOf(source))) return null
  const keeper = keepersOf(settings, needed, survey).find((one) => one !== expected)
  return {
    detail: `It has WAL up to ${needed}, and its slot on ${expected} keeps WAL from ${kept} on only.${keeper === undefined ? '' : ` The slot on ${keeper} keeps what it needs.`}`,
    hint:
      keeper === undefined
        ? `Whether ${expected} still has what is in between is found out by: replctl add-standby ${name}. Where that is gone: replctl add-standby ${name} --reclone`
        : `Let it catch up from ${keeper} first: replctl follow ${name} --upstream ${keeper}`,
  }
}

function whyNotStreaming(node: ObservedNode, expected: NodeName): ReplctlError {
  const { name } = node.settings
  const { instance } = node.facts
  return new ReplctlError('not-streaming', `${name} does not stream from ${expected}`, {
    detail: `Its state is ${node.state}; it has replayed ${instance?.replayLsn}.`,
    hint: `The reason stands in the log of ${name}. "replctl doctor ${name}" tries the login for real.`,
    node: name,
  })
}

export function primaryOf(topology: Topology, survey: readonly ObservedNode['facts'][]) {
  return survey.find((one) => one.name === topology.primary)
}
