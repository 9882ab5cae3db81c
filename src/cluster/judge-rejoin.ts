import { ReplctlError } from '../errors.ts'
import { compareLsn, type Lsn } from '../postgres/lsn.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import type { NodeFacts, RejoinMark } from './facts.ts'
import type { Divergence } from './judge-divergence.ts'
import type { NodeName } from './names.ts'
import { clusterIdentifier, commonRecord, identifierOf, isForeign } from './record.ts'
import { rejoinToTell, rejoinUnderWay } from './rejoin-under-way.ts'
import { factsOf, type Topology, timelineOf } from './topology.ts'
import { hasTakenOver, twoWriters } from './two-writers.ts'

/** The rungs of the ladder, the cheapest first. `none` is a `follow` in which nothing was left to do. */
export const rejoinMethods = ['none', 'follow', 'rewind', 'reclone'] as const
export type RejoinMethod = (typeof rejoinMethods)[number]

/**
 * Who leads, for a node that is to come back. A node that answers as a primary itself may come back only where it is beyond
 * doubt that another one took over: the record of the cluster and the higher timeline both say so.
 * @throws {ReplctlError} `primary-alive`, `two-writers`, `no-primary`, `foreign-cluster`, `foreign-data-directory`,
 * `node-not-built`, or why the recorded primary cannot be reached
 */
export function judgeRejoinPrimary(topology: Topology, node: NodeName): NodeName {
  const survey = topology.nodes.map((one) => one.facts)
  const own = factsOf(survey, node)
  const others = topology.writers.filter((name) => name !== node)
  const [primary] = others
  if (others.length > 1) throw twoWriters(topology)
  if (primary === undefined)
    throw topology.writers.includes(node) ? isThePrimary(node) : noPrimaryToFollow(survey)
  refuseForeign(own, survey)
  if (topology.writers.includes(node) && !hasTakenOver(topology, primary, node)) {
    throw unclearWhoLeads(topology, node, primary)
  }
  return primary
}

function refuseForeign(own: NodeFacts, survey: readonly NodeFacts[]): void {
  const { name } = own
  if (own.dataDirectoryState === 'not-an-instance') {
    throw new ReplctlError('foreign-data-directory', `the data directory of ${name} holds no instance`, {
      hint: 'replctl never touches it. Choose another data_dir, or move those files away.',
      node: name,
    })
  }
  if (isForeign(own, survey)) {
    throw new ReplctlError('foreign-cluster', `${name} belongs to another cluster`, {
      detail: `Its system identifier is ${identifierOf(own)}, the cluster's is ${clusterIdentifier(survey)}.`,
      hint: 'Correct the inventory, or move that instance away.',
      node: name,
    })
  }
  const isBeingCloned = (own.rejoin !== null && own.rejoin.phase !== 'whole') || own.mark?.phase === 'cloning'
  if (own.dataDirectoryState !== 'instance' && !isBeingCloned) {
    throw new ReplctlError('node-not-built', `there is nothing on ${name} that could come back`, {
      detail: `Its data directory is ${own.dataDirectoryState}.`,
      hint: `Build it: replctl add-standby ${name}`,
      node: name,
    })
  }
}

/** What the choice of a rung rests on, read right before it. */
export interface RejoinFacts {
  readonly node: NodeFacts
  readonly primary: NodeFacts
  /** Null where nothing can be compared: no whole instance is there any more. */
  readonly divergence: Divergence | null
  /** From here on the upstream still has all WAL in its pg_wal; null: not known. */
  readonly walKeptFrom: Lsn | null
  /** From here on the node needs WAL to follow. */
  readonly needsWalFrom: Lsn | null
  readonly hasArchive: boolean
  /** What is needed first of the WAL that the upstream no longer has: the archive said that it does not have it either. */
  readonly missingSegment: string | null
  /** Its own WAL is there from here on, and holds no checkpoint of before the fork; null: it does, or that is not known. */
  readonly lacksCheckpointFrom: Lsn | null
  /** pg_rewind is among the programs there. */
  readonly hasRewindProgram: boolean
  /** Of the kernel that runs there now. */
  readonly bootId: string
}

export interface RejoinWish {
  /** The operator wants it cloned anew, whatever else would do. */
  readonly isReclone: boolean
  /** Why it is cloned anew where that is not the operator's wish: what pg_rewind said when it was tried. */
  readonly refusal?: string | undefined
  /** What an earlier run had set aside is to be put back, also from behind a clone that was built. */
  readonly isTakenBack?: boolean | undefined
}

export interface RejoinDecision {
  readonly method: Exclude<RejoinMethod, 'none'>
  /** It holds what nobody else has, and nobody has saved that yet. */
  readonly isToBeSalvaged: boolean
  /** An earlier run had begun to replace what is there. */
  readonly isContinued: boolean
  /** One sentence for each rung that was looked at. */
  readonly reasons: readonly string[]
  /** An earlier run had discarded what only the node had, or begun to, and has not told it: this one does. */
  readonly untold: RejoinMark | null
}

/** How the node came back, by this run and the one that it goes on with. */
export function methodTold({ method, untold }: RejoinDecision): Exclude<RejoinMethod, 'none'> {
  return method === 'follow' && untold !== null ? untold.method : method
}

/** Chooses the rung: follow where nothing diverged, else rewind where that is possible, else clone anew. */
export function judgeRejoin(facts: RejoinFacts, wish: RejoinWish): RejoinDecision {
  const { node, divergence } = facts
  const isToBePutBack = wish.isTakenBack === true && node.rejoin !== null && node.rejoin.phase !== 'whole'
  const isBegun = isToBePutBack || rejoinUnderWay(node) !== null
  if (isBegun) return judgeContinued(facts, wish)
  if (divergence === null) return decide('reclone', false, ['There is no whole instance to start from.'])
  const isToBeSalvaged = divergence.is === 'diverged'
  if (!isToBeSalvaged) {
    const untold = rejoinToTell(node)
    const reasons = [...(untold === null ? [] : [begunAt(untold)]), `Not diverged: ${divergence.because}.`]
    const go = (method: RejoinDecision['method'], more: readonly string[]) => ({
      ...decide(method, false, [...reasons, ...more]),
      untold,
    })
    if (wish.isReclone) return go('reclone', [whyReclone(wish)])
    const gap = missingWal(facts)
    return gap === null ? go('follow', []) : go('reclone', [`Cannot follow: ${gap}.`])
  }
  const reasons = [`Cannot follow: ${divergence.because}.`]
  if (wish.isReclone) return decide('reclone', true, [...reasons, whyReclone(wish)])
  const obstacle = whyNoRewind(facts, divergence)
  return obstacle === null
    ? decide('rewind', true, [...reasons, 'pg_rewind can take it back to the fork.'])
    : decide('reclone', true, [...reasons, `Cannot be rewound: ${obstacle}.`])
}

/** An earlier run stopped in the middle: the directory is no whole instance, and what was its own is saved already. */
function judgeContinued({ node, primary, bootId }: RejoinFacts, wish: RejoinWish): RejoinDecision {
  const mark = node.rejoin
  if (mark === null) throw new RangeError('no rejoin was begun')
  const go = (method: RejoinDecision['method'], reason: string): RejoinDecision => ({
    ...{ method, isToBeSalvaged: false, isContinued: true },
    reasons: [begunAt(mark), reason],
    untold: mark,
  })
  if (mark.method === 'reclone') return go('reclone', 'The clone goes on.')
  if (wish.isReclone) return go('reclone', whyReclone(wish))
  if (mark.phase === 'rewound') return go('rewind', 'pg_rewind had come to its end.')
  if (mark.source !== primary.name || mark.timeline !== primary.instance?.timeline) {
    return go('reclone', `It was being rewound from ${mark.source}, timeline ${mark.timeline}.`)
  }
  if (mark.bootId !== bootId) {
    return go('reclone', 'Its host was restarted since: what pg_rewind had written may not be on its disk.')
  }
  return go('rewind', 'pg_rewind is run again.')
}

const whyReclone = ({ refusal }: RejoinWish): string =>
  refusal === undefined ? 'Cloned anew, as asked for.' : `Cannot be rewound, as it was tried: ${refusal}`

const begunAt = ({ at }: RejoinMark): string => `An earlier rejoin was begun at ${at} and did not end.`

/** Why pg_rewind would not work, or must not be used; null: it can be. */
function whyNoRewind(facts: RejoinFacts, divergence: Extract<Divergence, { is: 'diverged' }>): string | null {
  const { node, primary } = facts
  const { control } = node
  const setting = (name: string) => primary.instance?.settings[name]?.value ?? ''
  const isSameNumber = timelineOf(node) === primary.instance?.timeline
  if (divergence.isTwinTimeline || divergence.forkLsn === null || isSameNumber) {
    return 'pg_rewind tells timelines apart by their number alone'
  }
  if (!facts.hasRewindProgram) return `there is no pg_rewind on ${node.name}`
  if (control === null) return 'its pg_control cannot be read'
  if (!control.dataChecksums && !control.walLogHints) {
    return 'neither data checksums nor wal_log_hints are on'
  }
  if (setting('full_page_writes') === 'off') return `full_page_writes is off on ${primary.name}`
  if (hasSocketInDataDirectory(primary)) {
    return `${primary.name} has its socket in its data directory, which pg_rewind would try to copy`
  }
  if (isFreshlyPromoted(node) && !capabilitiesOf(node.dataMajor ?? 0).rewindKnowsFreshPromotion) {
    return 'it was promoted and crashed before its first checkpoint, which this pg_rewind does not see'
  }
  return (
    missingCheckpoint(facts, divergence.forkLsn) ?? missingWal({ ...facts, needsWalFrom: divergence.forkLsn })
  )
}

/** pg_rewind looks for the last checkpoint before the fork in the node's own WAL; an archive may have what is gone there. */
function missingCheckpoint({ node, lacksCheckpointFrom, hasArchive }: RejoinFacts, fork: Lsn): string | null {
  if (lacksCheckpointFrom === null) return null
  if (hasArchive && capabilitiesOf(node.dataMajor ?? 0).rewindRestoreTargetWal) return null
  return `it no longer has the WAL from the last checkpoint before the fork at ${fork} on (its own is there from ${lacksCheckpointFrom} on)`
}

function hasSocketInDataDirectory({ instance }: NodeFacts): boolean {
  const data = instance?.settings.data_directory?.value
  const sockets = instance?.settings.unix_socket_directories?.value ?? ''
  return (
    data !== undefined &&
    sockets.split(',').some((one) => one.trim() === data || one.trim().startsWith(`${data}/`))
  )
}

/** pg_control still shows the timeline before the one that its newest WAL is on. */
function isFreshlyPromoted({ control }: NodeFacts): boolean {
  const end = control?.minRecoveryEndTimeline ?? null
  return control !== null && control.state === 'in production' && end !== null && end > control.timeline
}

function missingWal(facts: RejoinFacts): string | null {
  const { primary, walKeptFrom, needsWalFrom, hasArchive, missingSegment } = facts
  if (walKeptFrom === null || needsWalFrom === null || compareLsn(walKeptFrom, needsWalFrom) <= 0) return null
  // An archive that did not answer may have it.
  if (hasArchive && missingSegment === null) return null
  const archive = hasArchive ? `the archive does not have ${missingSegment}` : 'there is no archive'
  return `the WAL from ${needsWalFrom} on is gone (${primary.name} has it from ${walKeptFrom} on), and ${archive}`
}

function decide(
  method: RejoinDecision['method'],
  isToBeSalvaged: boolean,
  reasons: readonly string[],
): RejoinDecision {
  return { method, isToBeSalvaged, isContinued: false, reasons, untold: null }
}

function isThePrimary(node: NodeName): ReplctlError {
  return new ReplctlError('primary-alive', `${node} is the primary: there is nobody it could follow`, {
    detail: 'It is the only node that accepts writes.',
    hint: 'Look at the cluster with "replctl status". To exchange the roles, promote or switch over first.',
    node,
  })
}

/** Why nobody can be followed: the one that leads by the record cannot be reached, or does not accept writes. */
export function noPrimaryToFollow(survey: readonly NodeFacts[]): ReplctlError {
  const led = commonRecord(survey)?.primary
  const away = survey.find((facts) => facts.unreachable !== null && (led === undefined || facts.name === led))
  if (away?.unreachable) return away.unreachable
  const isFenced = survey.some(({ name, fence }) => name === led && fence !== null)
  return new ReplctlError('no-primary', 'there is no primary to follow', {
    detail:
      led === undefined
        ? undefined
        : `By the last record, ${led} leads; ${isFenced ? 'it is fenced' : 'it does not accept writes now'}.`,
    hint: survey.some(({ journal }) => journal !== null)
      ? 'An operation stopped part-way: "replctl resume" finishes it, "replctl abort" takes it back.'
      : led === undefined
        ? 'Make one with "replctl init primary", or, if it is lost, "replctl promote".'
        : isFenced
          ? 'Have another node lead: replctl promote'
          : `Start ${led} if it is the primary; if it is lost: replctl promote`,
  })
}

function unclearWhoLeads(topology: Topology, node: NodeName, primary: NodeName): ReplctlError {
  const error = twoWriters(topology)
  return error.with({
    detail: `${error.detail} That ${primary} is the one to follow is not beyond doubt: the record of the cluster and a higher timeline would both have to say so.`,
    hint: `Decide which of them is right, and stop the other one. If it is ${primary} that is right: stop ${node}, then replctl rejoin ${node}`,
    node,
  })
}
