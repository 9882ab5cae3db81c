import { randomUUID } from 'node:crypto'
import { resolve } from 'node:path'
import { diagnose } from '../../cluster/diagnose.ts'
import type { NodeFacts } from '../../cluster/facts.ts'
import type { NodeName } from '../../cluster/names.ts'
import { type Problem, problemOf } from '../../cluster/problem.ts'
import {
  delayMsOf,
  isDeafForDelay,
  isRunningStandby,
  observeTopology,
  type Topology,
} from '../../cluster/topology.ts'
import { asReplctlError, exitCodes, ReplctlError } from '../../errors.ts'
import type { Node } from '../../node/node.ts'
import { type ArchiveProof, proveArchive } from '../../node/prove-archive.ts'
import { sqlEndpointOf, surveyNodes } from '../../node/survey.ts'
import {
  awaitReceipt,
  awaitTestRow,
  cannotWrite,
  eventTriggersBehind,
  isTestTableHeld,
  removeTestRow,
  type TestRow,
  writeTestRow,
} from '../../node/test-table.ts'
import { junitXml } from '../../report/junit.ts'
import { verifyPlanText, verifyText } from '../../report/verify.ts'
import { type ClusterSession, findNodes, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { requireReportPlace, writeReport } from '../junit-report.ts'
import { defaultTimeoutMs, paintOf } from '../operation.ts'

interface VerifiedNode {
  readonly name: string
  readonly ok: boolean
  readonly latency_ms: number | null
  readonly timeline: number | null
  /** How it was proved: the row was read there by SQL, or (replaying late on purpose) its commit was received there. */
  readonly proof: 'read' | 'received' | null
  /** Until the commit was received, where that is the proof. */
  readonly received_ms: number | null
  /** How late it replays, by wish. */
  readonly delay_seconds: number
}

interface VerifyResult {
  readonly token: string
  readonly lsn: string | null
  readonly nodes: readonly VerifiedNode[]
  readonly archive: {
    readonly ok: boolean
    readonly segment: string | null
    readonly latency_ms: number | null
  } | null
}

/** `replctl verify [NODE…] [--junit FILE]`. */
export async function run(call: Call): Promise<Answer> {
  const reportPath =
    typeof call.options.junit === 'string' ? resolve(call.io.cwd, call.options.junit) : undefined
  if (reportPath !== undefined) await requireReportPlace(reportPath)
  const session = await openCluster(call)
  try {
    const { inventory } = session
    const named = findNodes(inventory, (call.args[0] ?? []) as readonly string[]).map((node) => node.name)
    const chosen = named.length === 0 ? inventory.nodes.map((node) => node.name) : named
    const begunAt = performance.now()
    const survey = await surveyNodes([...session.nodes.values()], 'brief')
    if (call.signal.aborted) throw interrupted('Nothing was changed.')
    const topology = observeTopology(inventory, survey)
    const problems: Problem[] = diagnose(inventory, topology).filter(
      (problem) =>
        problem.node === null || named.length === 0 || chosen.some((name) => name === problem.node),
    )
    const primary = named.find((name) => name === topology.primary)
    if (primary !== undefined) problems.push(nothingToProve(primary, named))
    const standbys = survey.filter((facts) => chosen.includes(facts.name) && isRunningStandby(facts))
    if (call.flags.isDryRun) return planned({ call, session, topology, standbys, problems })
    const startedAt = performance.now()
    const result = await prove({ call, session, topology, standbys, problems, begunAt })
    const answer = { ...result, nodes: withTheOthers(result, topology, chosen, problems) }
    if (reportPath !== undefined) {
      const elapsedMs = performance.now() - startedAt
      const xml = junitXml({ cluster: inventory.cluster, result: answer, problems, elapsedMs })
      problems.push(...(await writeReport(reportPath, xml)))
    }
    return {
      exitCode: exitCodeFor(problems),
      changed: false,
      cluster: inventory.cluster,
      result: answer,
      problems,
      text: verifyText(answer, problems, paintOf(call, 'out')),
    }
  } finally {
    await session.close()
  }
}

/** It has the row because it was written there. Somebody who names it alone, after a failover to it, must not read a success. */
function nothingToProve(primary: NodeName, named: readonly NodeName[]): Problem {
  const isAlone = named.every((name) => name === primary)
  const error = new ReplctlError('not-a-standby', `${primary} is the primary`, {
    detail: `The test row is written there: it is no proof of replication${isAlone ? ', and no standby was named' : ''}.`,
    hint: 'To prove all standbys, whoever leads: replctl verify',
    node: primary,
  })
  return problemOf(error, isAlone ? 'error' : 'warning')
}

const exitCodeFor = (problems: readonly Problem[]): number =>
  problems.some((problem) => problem.severity === 'error') ? exitCodes.unhealthy : exitCodes.ok

/** The answer of a dry run: nothing was tried, so no node failed. */
function planned({ call, session, topology, standbys, problems }: Omit<ToProve, 'begunAt'>): Answer {
  const { inventory } = session
  const plan = {
    primary: topology.primary,
    standbys: standbys.map((facts) => facts.name),
    hasArchive: inventory.archive !== undefined,
  }
  return {
    exitCode: exitCodeFor(problems),
    changed: false,
    cluster: inventory.cluster,
    result: { token: null, lsn: null, nodes: [], archive: null },
    problems,
    text: verifyPlanText(plan, problems, paintOf(call, 'out')),
  }
}

interface ToProve {
  readonly call: Call
  readonly session: ClusterSession
  readonly topology: Topology
  readonly standbys: readonly NodeFacts[]
  readonly problems: Problem[]
  /** When the survey began. */
  readonly begunAt: number
}

/** With dead hosts around it comes to its end this long after the time that it takes to see that they are dead. */
const afterDeadHostsMs = 4_000

/** Writes a row on the primary, reads it on every standby, and has the archive proved where there is one. */
async function prove(wish: ToProve): Promise<VerifyResult> {
  const { call, session, topology, standbys, problems, begunAt } = wish
  const token = randomUUID()
  const nothing = { token, lsn: null, nodes: [], archive: null }
  const primary = topology.nodes.find((node) => node.settings.name === topology.primary)
  if (primary === undefined) return nothing
  const node = session.nodes.get(primary.settings.name)
  if (node === undefined) return nothing
  const sql = await node.sql(sqlEndpointOf(node, primary.facts))
  const timeoutMs = boundOf(call, topology, begunAt)
  let row: TestRow
  try {
    row = await writeTestRow(sql, token)
  } catch (thrown) {
    if (call.signal.aborted) throw interrupted(takenAway)
    const error = asReplctlError(thrown)
    problems.push(problemOf(cannotWrite(node.name, error, await eventTriggersBehind(sql, error))))
    return nothing
  }
  const writtenAt = performance.now()
  const limits = { timeoutMs, signal: call.signal }
  // What one of them cannot tell takes nothing from what the others have proved.
  const [nodes, archive] = await Promise.all([
    Promise.all(
      standbys.map((facts) => readOn(session.nodes, facts, row, writtenAt, limits, topology, problems)),
    ),
    proveArchive({
      ...{ node, sql, inventory: session.inventory, facts: primary.facts },
      ...{ timeoutMs, problems, signal: call.signal },
    }).catch((thrown: unknown): ArchiveProof => {
      problems.push(problemOf(archiveUnproved(node.name, asReplctlError(thrown))))
      return { ok: false, segment: null, latency_ms: null }
    }),
  ])
  const keepsTable = await isHeldOnStandby(session.nodes, topology)
  await removeTestRow(sql, row, { keepsTable }).catch((thrown: unknown) => {
    problems.push(problemOf(rowStays(node.name, asReplctlError(thrown))))
  })
  if (call.signal.aborted) throw interrupted(takenAway)
  return { token, lsn: row.lsn, nodes, archive }
}

/** Asked of every running standby, also of those that are not to be verified: the table goes from all of them. */
async function isHeldOnStandby(nodes: ReadonlyMap<string, Node>, topology: Topology): Promise<boolean> {
  const held = topology.nodes.map(async ({ facts }) => {
    const node = nodes.get(facts.name)
    if (node === undefined || !isRunningStandby(facts)) return false
    return await isTestTableHeld(await node.sql(sqlEndpointOf(node, facts)))
  })
  // One that does not answer is told as ill already.
  return (await Promise.all(held.map((one) => one.catch(() => false)))).includes(true)
}

/** What is left of the time: hosts that do not answer must not hold up what is said of the others. */
function boundOf(call: Call, { nodes }: Topology, begunAt: number): number {
  const timeoutMs = call.flags.timeoutMs ?? defaultTimeoutMs
  const dead = nodes.filter(({ facts }) => facts.unreachable !== null)
  if (dead.length === 0) return timeoutMs
  const patienceMs = Math.max(...dead.map(({ settings }) => settings.ssh.connectTimeoutMs))
  return Math.min(timeoutMs, Math.max(1_000, patienceMs + afterDeadHostsMs - (performance.now() - begunAt)))
}

async function readOn(
  nodes: ReadonlyMap<string, Node>,
  facts: NodeFacts,
  row: TestRow,
  writtenAt: number,
  { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal },
  topology: Topology,
  problems: Problem[],
): Promise<VerifiedNode> {
  const name = facts.name
  const timeline = facts.instance?.timeline ?? null
  const observed = topology.nodes.find((node) => node.settings.name === name)
  const node = nodes.get(name)
  const known = problems.some((problem) => problem.node === name && problem.severity === 'error')
  // A standby that cannot get the row (paused, cut off, another timeline) is known to be ill: no need to wait long.
  const delayMs = observed === undefined ? 0 : delayMsOf(observed)
  // One that holds back a transaction on purpose, and lost its upstream meanwhile, asks for WAL only after that.
  const limitMs = known || isDeafForDelay(facts.instance) ? Math.min(1_000, timeoutMs) : timeoutMs
  const common = { name, timeline, delay_seconds: delayMs / 1000 }
  const nothing = { ...common, ok: false, latency_ms: null, proof: null, received_ms: null }
  try {
    if (node === undefined) throw new RangeError(`no connection to ${name}`)
    const sql = await node.sql(sqlEndpointOf(node, facts))
    const until = { deadlineMs: performance.now() + limitMs, signal }
    if (delayMs > 0) {
      const received = await awaitReceipt(sql, row.flushedLsn, writtenAt, until)
      if (received !== null)
        return { ...nothing, ok: !known, proof: 'received' as const, received_ms: received }
    } else {
      const latency = await awaitTestRow(sql, row, writtenAt, until)
      if (latency !== null) return { ...nothing, ok: !known, proof: 'read' as const, latency_ms: latency }
    }
    if (!known) problems.push(problemOf(rowMissing(name, limitMs)))
  } catch (thrown) {
    problems.push(problemOf(asReplctlError(thrown).with({ node: name })))
  }
  return nothing
}

/** Nodes that could not even be asked are part of the answer, not ok. */
function withTheOthers(
  result: VerifyResult,
  topology: Topology,
  chosen: readonly string[],
  problems: readonly Problem[],
): readonly VerifiedNode[] {
  return topology.nodes.flatMap((node): VerifiedNode[] => {
    const { name } = node.settings
    if (name === topology.primary || !chosen.includes(name)) return []
    const known = result.nodes.find((one) => one.name === name)
    const isIll = problems.some((problem) => problem.node === name && problem.severity === 'error')
    if (known !== undefined) return [{ ...known, ok: known.ok && !isIll }]
    return [
      {
        ...{ name, ok: false, latency_ms: null, timeline: node.facts.instance?.timeline ?? null },
        ...{ proof: null, received_ms: null, delay_seconds: delayMsOf(node) / 1000 },
      },
    ]
  })
}

function interrupted(detail: string): ReplctlError {
  return new ReplctlError('interrupted', 'interrupted by a signal', { detail })
}

function archiveUnproved(node: string, cause: ReplctlError): ReplctlError {
  return new ReplctlError('archive-failing', `the archive could not be proved from ${node}`, {
    detail: `${cause.message}. ${cause.detail ?? ''}`.trim(),
    hint: cause.hint ?? 'Look at it with "replctl archive status".',
    node,
  })
}

/** It is one row of replctl's own table. */
function rowStays(node: string, cause: ReplctlError): ReplctlError {
  return new ReplctlError(cause.code, `the test row on ${node} could not be taken away again`, {
    detail: `${cause.message}. ${cause.detail ?? ''}`.trim(),
    hint: 'The next "replctl verify" takes old ones away.',
    node,
  })
}

const takenAway = 'The test row is taken away again; nothing else was changed.'

function rowMissing(node: string, limitMs: number): ReplctlError {
  return new ReplctlError('lag-too-high', `the test row did not arrive on ${node}`, {
    detail: `It could not be read there within ${limitMs / 1000} s.`,
    hint: `Look at the lag of ${node} with "replctl status".`,
    node,
  })
}
