import { ReplctlError } from '../errors.ts'
import { standbyParityParameters } from '../postgres/settings.ts'
import { archivingFault } from './archiving-fault.ts'
import { chooseCandidate } from './choose-candidate.ts'
import { leftOverSlots, slotFinding } from './diagnose-slots.ts'
import { diagnoseSynchronous } from './diagnose-synchronous.ts'
import type { Inventory } from './inventory.ts'
import { judgeArchiving } from './judge-archiving.ts'
import { twoWriters } from './judge-promotion.ts'
import type { NodeName } from './names.ts'
import { type Problem, problemOf } from './problem.ts'
import { clusterIdentifier, identifierOf, isForeign } from './record.ts'
import { rejoinUnderWay } from './rejoin-under-way.ts'
import { expectedUpstream, type ObservedNode, placeFor, type Topology } from './topology.ts'
import { comeBackHint, refusalToDiscard, wayBack } from './way-back.ts'

/** Everything that is not as the inventory wants it, worst first, each with the command that mends it. */
export function diagnose(inventory: Inventory, topology: Topology): readonly Problem[] {
  const survey = topology.nodes.map((node) => node.facts)
  const problems: Problem[] = []
  const add = (error: ReplctlError, severity: Problem['severity'] = 'error') =>
    problems.push(problemOf(error, severity))
  if (topology.writers.length > 1) add(twoWriters(topology))
  if (topology.writers.length === 0) add(noPrimary(topology))
  for (const node of topology.nodes) {
    for (const problem of diagnoseNode(inventory, topology, node, survey)) add(...problem)
  }
  for (const problem of diagnosePrimary(inventory, topology)) add(...problem)
  for (const error of leftOverSlots(inventory, topology)) add(error, 'warning')
  return problems
}

type Finding = readonly [ReplctlError, Problem['severity']?]

function noPrimary(topology: Topology): ReplctlError {
  const { best } = chooseCandidate(topology)
  const isEmpty = topology.nodes.every((node) => node.role === 'empty')
  return new ReplctlError('no-primary', 'no node accepts writes', {
    hint: isEmpty
      ? 'Build the cluster: replctl init primary'
      : best === null
        ? 'Bring a node back first: no standby can be promoted now.'
        : `If the primary is lost: replctl promote (the best candidate is ${best})`,
  })
}

function diagnoseNode(
  inventory: Inventory,
  topology: Topology,
  node: ObservedNode,
  survey: readonly ObservedNode['facts'][],
): Finding[] {
  const { facts, settings, role } = node
  const name = settings.name
  if (facts.unreachable !== null) return [[facts.unreachable]]
  if (facts.dataDirectoryState === 'not-an-instance') return [[foreignDirectory(node)]]
  if (isForeign(facts, survey)) return [[foreignInstance(node, clusterIdentifier(survey))]]
  if (role === 'empty') return [[notBuilt(node, topology)]]
  if (facts.postmaster?.isAlive === true && facts.instance === null) return [[notAnswering(node)]]
  if (role === 'fenced') {
    return [
      ...journalFinding(node),
      [
        new ReplctlError(
          'node-fenced',
          `${name} is fenced: it was the primary before ${facts.fence?.newPrimary}`,
          {
            hint: comeBackHint(facts, primaryOf(topology, survey)),
            node: name,
          },
        ),
      ],
    ]
  }
  if (role === 'stopped') {
    const lost = node.slot?.walStatus === 'lost' ? slotFinding(inventory, node, topology) : null
    return [
      ...journalFinding(node),
      [stopped(node, primaryOf(topology, survey))],
      ...(lost === null ? [] : [[lost] as const]),
    ]
  }
  const findings: Finding[] = [...journalFinding(node)]
  if (role === 'diverged') findings.push([diverged(node, topology)])
  else if (role === 'standby') findings.push(...diagnoseStandby(inventory, topology, node, survey))
  return findings
}

function diagnoseStandby(
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
    findings.push([
      new ReplctlError('replay-paused', `replay is paused on ${name}`, {
        hint: `Resume it there: SELECT pg_wal_replay_resume();`,
        node: name,
      }),
    ])
  }
  const slot = slotFinding(inventory, node, topology)
  if (slot !== null) findings.push([slot])
  if (topology.primary === null) return findings
  const expected = expectedUpstream(inventory, settings, topology.primary, survey)
  const actual = node.upstream ?? node.foreignUpstream
  // Nobody is to be put below one that gets nothing itself: that one is told of.
  const isPassedOver =
    actual === topology.primary && placeFor(inventory, settings, topology.primary, topology) === actual
  if (actual !== expected && !isPassedOver) findings.push(wrongUpstream(node, expected, survey))
  else if (node.state === 'disconnected' || node.state === 'archive')
    findings.push(notStreaming(node, expected))
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
  findings.push(...parityFindings(topology, node, survey))
  const fault = archivingFault(inventory, facts)
  if (fault !== null) findings.push(fault)
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

function diagnosePrimary(inventory: Inventory, topology: Topology): Finding[] {
  const primary = topology.nodes.find((node) => node.settings.name === topology.primary)
  const instance = primary?.facts.instance
  if (primary === undefined || instance === null || instance === undefined) return []
  const findings: Finding[] = []
  const name = primary.settings.name
  const synchronous = diagnoseSynchronous(inventory, topology)
  if (synchronous !== null) findings.push([synchronous])
  findings.push(...judgeArchiving(inventory, primary.facts))
  const rewindable =
    instance.settings.data_checksums?.value === 'on' || instance.settings.wal_log_hints?.value === 'on'
  if (!rewindable) {
    findings.push([
      rewindUnavailable(
        name,
        'Neither data checksums nor wal_log_hints are on.',
        `Set wal_log_hints = on and restart ${name}`,
      ),
      'warning',
    ])
  }
  if (instance.settings.full_page_writes?.value === 'off') {
    findings.push([
      rewindUnavailable(name, 'full_page_writes is off.', `Set full_page_writes = on on ${name}`),
      'warning',
    ])
  }
  return findings
}

function rewindUnavailable(name: NodeName, detail: string, mend: string): ReplctlError {
  return new ReplctlError('rewind-unavailable', `pg_rewind would not work on ${name}`, {
    detail,
    hint: `${mend}; without it "replctl rejoin" must clone a diverged member anew.`,
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

function notStreaming(node: ObservedNode, expected: NodeName): Finding {
  const { name, delayMs } = node.settings
  const { instance } = node.facts
  const error = new ReplctlError('not-streaming', `${name} does not stream from ${expected}`, {
    detail: `Its state is ${node.state}; it has replayed ${instance?.replayLsn}.`,
    hint: `The reason stands in the log of ${name}. "replctl doctor ${name}" tries the login for real.`,
    node: name,
  })
  if (instance?.isAwaitingDelay !== true) return [error]
  return [
    error.with({
      detail: `It holds a transaction back on purpose (delay of ${delayMs / 1000} s). PostgreSQL asks ${expected} for more WAL only after that.`,
      hint: `Nothing is to be done: its slot on ${expected} keeps the WAL.`,
    }),
    'warning',
  ]
}

function foreignDirectory(node: ObservedNode): ReplctlError {
  return new ReplctlError(
    'foreign-data-directory',
    `${node.settings.postgres.dataDir} on ${node.settings.name} holds something that is not a PostgreSQL instance`,
    {
      hint: 'replctl never touches it. Choose another data_dir, or move those files away.',
      node: node.settings.name,
    },
  )
}

function notBuilt(node: ObservedNode, topology: Topology): ReplctlError {
  const { name } = node.settings
  const mayBeUnmounted = node.facts.mark?.phase === 'done'
  const way = wayToBuild(node, topology)
  return new ReplctlError('node-not-built', `${name} is not built yet`, {
    detail: `${node.settings.postgres.dataDir} is ${node.facts.dataDirectoryState}.`,
    hint: mayBeUnmounted ? `It was built here: look whether its file system is mounted. Else: ${way}` : way,
    node: name,
  })
}

/** Where anything of the cluster is known, or somebody cannot be asked, to begin anew may make a second one. */
function wayToBuild({ settings: { name }, facts }: ObservedNode, { nodes, writers }: Topology): string {
  if (writers.length > 0) {
    return rejoinUnderWay(facts) === null ? `replctl add-standby ${name}` : comeBackHint(facts, undefined)
  }
  if (nodes.some(({ facts }) => facts.mark !== null || facts.record !== null)) {
    return `Bring the primary back, or promote a standby; then: replctl add-standby ${name}`
  }
  const silent = nodes.filter(({ facts }) => facts.unreachable !== null).map(({ settings }) => settings.name)
  const init = `replctl init primary ${name}`
  return silent.length === 0 ? init : `If nothing is built on ${silent.join(' and ')} either: ${init}`
}

function notAnswering(node: ObservedNode): ReplctlError {
  const { facts, settings } = node
  return new ReplctlError('not-answering', `${settings.name} is not answering`, {
    detail: `Its postmaster (pid ${facts.postmaster?.pid}) exists${
      facts.postmaster?.isFrozen === true ? ' and is frozen (SIGSTOP)' : ''
    }. ${facts.instanceError?.message ?? ''}`,
    hint: 'Look at its log and its disk. If it is the primary and has to be replaced: replctl promote',
    node: settings.name,
  })
}

function stopped(node: ObservedNode, primary: ObservedNode['facts'] | undefined): ReplctlError {
  const { facts, settings } = node
  const isBegun = rejoinUnderWay(facts) !== null
  return new ReplctlError('instance-stopped', `PostgreSQL is stopped on ${settings.name}`, {
    detail: `pg_control says "${facts.control?.state ?? 'unreadable'}", timeline ${facts.control?.timeline ?? '?'}.`,
    hint:
      primary === undefined
        ? facts.hasStandbySignal
          ? `Start it as a standby, with what starts PostgreSQL there (as a rule: pg_ctl start -D ${settings.postgres.dataDir}); then, if the primary is lost: replctl promote`
          : 'If it is the primary, start it; if it is lost: replctl promote'
        : isBegun
          ? comeBackHint(facts, primary)
          : facts.hasStandbySignal && refusalToDiscard(facts, primary) === null
            ? `Start it again: replctl add-standby ${settings.name}`
            : wayBack(settings.name),
    node: settings.name,
  })
}

function diverged(node: ObservedNode, topology: Topology): ReplctlError {
  const { facts, settings } = node
  return new ReplctlError('node-diverged', `${settings.name} has WAL that ${topology.primary} never had`, {
    detail: `It is on timeline ${facts.instance?.timeline} at ${facts.instance?.receiveLsn ?? facts.instance?.replayLsn}, past the point where the primary's history left that timeline.`,
    hint: wayBack(settings.name),
    node: settings.name,
  })
}

function journalFinding(node: ObservedNode): Finding[] {
  if (node.facts.journal === null || node.facts.holder !== null) return []
  return [
    [
      new ReplctlError(
        'operation-unfinished',
        `an operation stopped part-way (journal on ${node.settings.name})`,
        {
          detail: node.facts.journal,
          hint: 'Finish it with "replctl resume", or take it back with "replctl abort".',
          node: node.settings.name,
        },
      ),
      'warning',
    ],
  ]
}

function primaryOf(topology: Topology, survey: readonly ObservedNode['facts'][]) {
  return survey.find((one) => one.name === topology.primary)
}

function foreignInstance(node: ObservedNode, ours: string | null): ReplctlError {
  const { name, postgres } = node.settings
  return new ReplctlError('foreign-cluster', `${name} belongs to another cluster`, {
    detail: `Its system identifier is ${identifierOf(node.facts)}, the cluster's is ${ours}.`,
    hint: `Look at what ${postgres.dataDir} on ${name} really is; correct the inventory or move it away.`,
    node: name,
  })
}
