import { ReplctlError } from '../errors.ts'
import { chooseCandidate } from './choose-candidate.ts'
import { closedPrimary, whyClosed } from './closed-primary.ts'
import { leftOverSlots, slotFinding } from './diagnose-slots.ts'
import { diagnoseStandby, type Finding, primaryOf } from './diagnose-standby.ts'
import { diagnoseSynchronous } from './diagnose-synchronous.ts'
import { awaitedAndAway, subscribersBlocked } from './failover-slots.ts'
import type { Inventory } from './inventory.ts'
import { judgeArchiving } from './judge-archiving.ts'
import { strayAlive, strayPrimary, wayIn } from './judge-promotion.ts'
import { refusalOfUnknownMember } from './judge-unknown-member.ts'
import type { NodeName } from './names.ts'
import { type Problem, problemOf } from './problem.ts'
import { clusterIdentifier, identifierOf, isForeign } from './record.ts'
import { rejoinToTell, rejoinUnderWay } from './rejoin-under-way.ts'
import { isReceivingFrom, type ObservedNode, type Topology, timelineOf } from './topology.ts'
import { twoWriters } from './two-writers.ts'
import { comeBackHint, refusalToDiscard, wayBack } from './way-back.ts'

/** Everything that is not as the inventory wants it, worst first, each with the command that mends it. */
export function diagnose(inventory: Inventory, topology: Topology): readonly Problem[] {
  const survey = topology.nodes.map((node) => node.facts)
  const problems: Problem[] = []
  const add = (error: ReplctlError, severity: Problem['severity'] = 'error') =>
    problems.push(problemOf(error, severity))
  if (topology.writers.length > 1) add(twoWriters(topology))
  const stray = strayPrimary(topology)
  if (stray !== undefined) add(strayAlive(stray))
  else if (topology.writers.length === 0) add(noPrimary(inventory, topology))
  for (const node of topology.nodes) {
    // What is missing in its data directory must not be built, nor anybody promoted for it.
    if (node === stray) continue
    for (const problem of diagnoseNode(inventory, topology, node, survey)) add(...problem)
  }
  for (const problem of diagnosePrimary(inventory, topology)) add(...problem)
  for (const error of leftOverSlots(inventory, topology)) add(error, 'warning')
  const unknown = refusalOfUnknownMember(inventory, topology)
  if (unknown !== null) add(unknown, 'warning')
  return problems
}

function noPrimary(inventory: Inventory, topology: Topology): ReplctlError {
  const { best } = chooseCandidate(topology)
  const { nodes } = topology
  const isEmpty = nodes.every((node) => node.role === 'empty')
  // Without a name it would be gone on with whoever was told before.
  const isUnfinished = nodes.some(({ facts }) => facts.journal !== null && facts.holder === null)
  const way = isEmpty
    ? 'Build the cluster: replctl init primary'
    : best === null
      ? 'Bring a node back first: no standby can be promoted now.'
      : isUnfinished
        ? `If the primary is lost: replctl promote ${best}. What stopped part-way may have told another one to lead: "replctl resume" goes on with that.`
        : `If the primary is lost: replctl promote (the best candidate is ${best})`
  const isAnybodySilent = nodes.some(({ facts }) => facts.unreachable !== null)
  const message = isAnybodySilent ? 'no node that answers accepts writes' : 'no node accepts writes'
  const closed = closedPrimary(topology)
  if (closed !== undefined) {
    const { name } = closed.settings
    return new ReplctlError('no-primary', `the primary ${name} answers, but ${whyClosed(closed.facts)}`, {
      hint: `${wayIn(closed.facts)} Nobody is to be promoted while it answers.`,
    })
  }
  const hidden = hiddenLead(topology)
  if (hidden !== undefined) return leadsUnseen(message, hidden)
  const unknown = senderUnknown(nodes)
  if (unknown !== null) {
    const { at, receivers } = unknown
    return new ReplctlError('no-primary', message, {
      detail: `${receivers.join(', ')} receive${receivers.length === 1 ? 's' : ''} from ${at} at this moment, and no node of ${inventory.path} is known by that.`,
      hint: `Put that node into the inventory: it may be the primary, and nobody is to be promoted beside it.`,
    })
  }
  const alive = sendersAlive(inventory, topology)[0]
  if (alive === undefined) return new ReplctlError('no-primary', message, { hint: way })
  const { sender, receivers, isInReach } = alive
  return new ReplctlError('no-primary', message, {
    detail: `${receivers.join(', ')} still receive${receivers.length === 1 ? 's' : ''} from ${sender}.`,
    // Where its host answers, promote stops it.
    hint: isInReach
      ? `See to it that ${sender} answers again. ${way}`
      : `See to it that ${sender} can be reached and answers: promote refuses while somebody receives from it. ${way}`,
  })
}

/** One that cannot be reached, and that tells the others that it leads, or follows a newer timeline than whatever answers. */
function hiddenLead({ nodes }: Topology): ObservedNode | undefined {
  const newest = Math.max(0, ...nodes.map(({ facts }) => timelineOf(facts) ?? 0))
  const hidden = nodes.filter(({ facts }) => facts.unreachable !== null)
  return (
    hidden.find(({ facts }) => facts.seenByOthers?.role === 'primary') ??
    hidden.find(({ facts }) => (facts.seenByOthers?.timeline ?? 0) > newest)
  )
}

/** It cannot be reached from here, and tells the others that it leads, beside one that is seen to. */
export function leadsBeside(
  { facts, settings: { name, host } }: ObservedNode,
  { writers }: Topology,
): ReplctlError | null {
  const { seenByOthers: answer } = facts
  const [primary] = writers
  if (primary === undefined || answer?.role !== 'primary') return null
  return new ReplctlError('two-writers', `${primary} and ${name} accept writes at the same time`, {
    detail: `${name}, whose SSH cannot be reached from here, told ${answer.from} that it is a primary on timeline ${answer.timeline}.`,
    hint: `Decide which of them is right. If it is ${primary}: switch off ${host}, or restore SSH to it, then: replctl rejoin ${name}`,
    node: name,
  })
}

function leadsUnseen(message: string, { facts, settings: { name, host } }: ObservedNode): ReplctlError {
  const { seenByOthers: answer } = facts
  return new ReplctlError('no-primary', message, {
    detail: `${name}, whose SSH cannot be reached from here, told ${answer?.from} that it is a ${answer?.role} on timeline ${answer?.timeline}.`,
    hint:
      answer?.role === 'primary'
        ? `Restore SSH to ${host}: ${name} is the primary, and nobody is to be promoted beside it.`
        : `Restore SSH to ${host}, or to the node that ${name} follows: another one leads than those that answer know of.`,
  })
}

/** A living walsender that has nothing to send says so after half of wal_sender_timeout (60 s by default) at the latest. */
const longestSilenceSeconds = 30

/** An address that no node of the inventory is known by, and that standbys hear from. */
function senderUnknown(nodes: Topology['nodes']) {
  const hearing = nodes.filter(
    ({ facts: { instance }, foreignUpstream }) =>
      foreignUpstream !== null && (instance?.receiver?.silenceSeconds ?? Infinity) < longestSilenceSeconds,
  )
  const at = hearing[0]?.foreignUpstream
  if (at === undefined || at === null) return null
  const receivers = hearing.filter((one) => one.foreignUpstream === at).map(({ settings }) => settings.name)
  return { at, receivers }
}

/** Nodes that do not answer us, and that standbys hear from. */
function sendersAlive(
  inventory: Inventory,
  { nodes }: Topology,
): readonly {
  readonly sender: NodeName
  readonly receivers: readonly NodeName[]
  readonly isInReach: boolean
}[] {
  return nodes.flatMap(({ facts, settings: { name: sender } }) => {
    const isSilent = facts.unreachable !== null || facts.postmaster?.isAlive === true
    if (facts.instance !== null || !isSilent) return []
    const receivers = nodes.flatMap(({ facts: { instance }, settings: { name, upstream } }) => {
      const silence = instance?.receiver?.silenceSeconds ?? null
      const isHeard = silence !== null && silence < longestSilenceSeconds
      // A standby may be what sends to whom is wished below it.
      return isHeard && upstream !== sender && isReceivingFrom(inventory, instance, sender) ? [name] : []
    })
    return receivers.length === 0 ? [] : [{ sender, receivers, isInReach: facts.unreachable === null }]
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
  if (facts.unreachable !== null) {
    const beside = leadsBeside(node, topology)
    return beside === null ? [[facts.unreachable]] : [[beside], [facts.unreachable]]
  }
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
      ...(lost === null ? [] : [lost]),
    ]
  }
  const findings: Finding[] = [...journalFinding(node)]
  if (role === 'diverged') findings.push([diverged(node, topology)])
  else if (role === 'standby') findings.push(...diagnoseStandby(inventory, topology, node, survey))
  return findings
}

function diagnosePrimary(inventory: Inventory, topology: Topology): Finding[] {
  const primary = topology.nodes.find((node) => node.settings.name === topology.primary)
  const instance = primary?.facts.instance
  if (primary === undefined || instance === null || instance === undefined) return []
  const findings: Finding[] = []
  const name = primary.settings.name
  const synchronous = diagnoseSynchronous(inventory, topology)
  if (synchronous !== null) findings.push([synchronous])
  const awaited = awaitedAndAway(instance)
  if (awaited.length > 0) findings.push([subscribersBlocked(inventory, name, awaited)])
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
  const closed = whyClosed(facts)
  if (closed !== null) {
    return new ReplctlError('not-answering', `${settings.name} answers, but ${closed}`, {
      detail: facts.instanceError?.message,
      hint: wayIn(facts),
      node: settings.name,
    })
  }
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
  const isBegun = rejoinUnderWay(facts) !== null || rejoinToTell(facts) !== null
  if (facts.mark?.phase === 'cloning' && !isBegun) return halfCloned(settings.name)
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

/** What lies there is a part of a copy: it holds nothing of its own. */
function halfCloned(node: NodeName): ReplctlError {
  return new ReplctlError('instance-stopped', `the clone on ${node} is not complete`, {
    detail: 'Its base backup is still under way, or was begun and did not end.',
    hint: `Go on with it, or begin it anew: replctl add-standby ${node}`,
    node,
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

function foreignInstance(node: ObservedNode, ours: string | null): ReplctlError {
  const { name, postgres } = node.settings
  return new ReplctlError('foreign-cluster', `${name} belongs to another cluster`, {
    detail: `Its system identifier is ${identifierOf(node.facts)}, the cluster's is ${ours}.`,
    hint: `Look at what ${postgres.dataDir} on ${name} really is; correct the inventory or move it away.`,
    node: name,
  })
}
