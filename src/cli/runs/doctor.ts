import { checksOf, type DoctorCheck } from '../../cluster/doctor-check.ts'
import type { ExaminedNode, ExaminedPrimary, PrimaryNeeds } from '../../cluster/doctor-facts.ts'
import { judgeAlike, judgeReach } from '../../cluster/judge-between-hosts.ts'
import { judgeHost } from '../../cluster/judge-host.ts'
import { archiveHost, type NodeName } from '../../cluster/names.ts'
import { problemOf } from '../../cluster/problem.ts'
import type { Room } from '../../cluster/room.ts'
import { observeTopology, type Topology } from '../../cluster/topology.ts'
import { twoWriters } from '../../cluster/two-writers.ts'
import { asReplctlError, exitCodes } from '../../errors.ts'
import { examineArchive, examineArchiveStream } from '../../node/examine-archive.ts'
import { measureRoom } from '../../node/measure-room.ts'
import type { Node } from '../../node/node.ts'
import { readPrimaryNeeds } from '../../node/primary-needs.ts'
import { probeHost } from '../../node/probe-host.ts'
import { surveyNode } from '../../node/survey.ts'
import { tryReach } from '../../node/try-reach.ts'
import { doctorJson, doctorText } from '../../report/doctor.ts'
import { type ClusterSession, findNodes, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../operation.ts'

/** `replctl doctor [NODE…]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const { inventory } = session
    const named = findNodes(inventory, (call.args[0] ?? []) as readonly string[])
    const chosen = (named.length === 0 ? inventory.nodes : named).map((node) => node.name)
    const [nodes, archive] = await Promise.all([
      Promise.all([...session.nodes.values()].map(examine)),
      checkArchive(session),
    ])
    const topology = observeTopology(
      inventory,
      nodes.map((node) => node.facts),
    )
    const checks = [...(await checkAll(session, topology, nodes, chosen)), ...archive]
    const found = checks.flatMap((one) =>
      one.problem === null ? [] : [problemOf(one.problem, one.severity)],
    )
    const problems = topology.writers.length > 1 ? [problemOf(twoWriters(topology)), ...found] : found
    return {
      exitCode: problems.some((problem) => problem.severity === 'error') ? exitCodes.unhealthy : exitCodes.ok,
      changed: false,
      cluster: inventory.cluster,
      result: doctorJson(checks),
      problems,
      text: doctorText(checks, problems, paintOf(call, 'out')),
    }
  } finally {
    await session.close()
  }
}

/** Looks at one host, and tries on it what can be tried there alone. */
async function examine(node: Node): Promise<ExaminedNode> {
  const facts = await surveyNode(node)
  const { settings } = node
  if (facts.unreachable !== null) return { settings, facts, probe: null }
  try {
    return { settings, facts, probe: await probeHost(node, facts) }
  } catch (thrown) {
    const error = asReplctlError(thrown)
    return error.code === 'timeout'
      ? { settings, facts, probe: null, probeError: error }
      : { settings, facts: { ...facts, unreachable: error }, probe: null }
  }
}

async function checkAll(
  session: ClusterSession,
  topology: Topology,
  nodes: readonly ExaminedNode[],
  chosen: readonly NodeName[],
): Promise<readonly DoctorCheck[]> {
  const [primary, reaches] = await Promise.all([
    examinePrimary(session, topology, nodes, chosen),
    Promise.all(pairsToTry(topology, nodes, chosen).map((pair) => checkReach(session, pair))),
  ])
  const identifier = nodes.find((node) => node.facts.name === topology.primary)?.facts.instance
    ?.systemIdentifier
  const alike = judgeAlike(nodes, chosen, primary)
  return nodes
    .filter((node) => chosen.includes(node.facts.name))
    .flatMap((node) => {
      const isOwn = (check: DoctorCheck) => check.node === node.facts.name
      return [...judgeHost(node, identifier ?? null), ...alike.filter(isOwn), ...reaches.filter(isOwn)]
    })
    .concat(reaches.filter((check) => !chosen.some((name) => name === check.node)))
}

async function examinePrimary(
  session: ClusterSession,
  { primary }: Topology,
  nodes: readonly ExaminedNode[],
  chosen: readonly NodeName[],
): Promise<ExaminedPrimary | null> {
  const facts = nodes.find((node) => node.facts.name === primary)?.facts
  const node = primary === null ? undefined : session.nodes.get(primary)
  if (facts === undefined || node === undefined) return null
  const needs = await readPrimaryNeeds(node, facts).catch(() => null)
  if (needs === null) return null
  const unbuilt = nodes.filter(
    (one) =>
      one.probe !== null && chosen.includes(one.facts.name) && one.facts.dataDirectoryState !== 'instance',
  )
  const rooms = await Promise.all(
    unbuilt.map(async (one) => [one.facts.name, await roomOn(session, one, needs)] as const),
  )
  return { name: facts.name, needs, rooms: new Map(rooms) }
}

async function roomOn(
  session: ClusterSession,
  { facts }: ExaminedNode,
  { size }: PrimaryNeeds,
): Promise<readonly Room[]> {
  const node = session.nodes.get(facts.name)
  const isBegun = facts.mark?.phase === 'cloning' && facts.mark.inode === facts.dataDirectoryInode
  return node === undefined ? [] : await measureRoom(node, size, isBegun).catch(() => [])
}

interface Pair {
  readonly from: ExaminedNode
  readonly to: ExaminedNode
}

/**
 * Who has to reach whom: every node the primary (or, while there is none, the first node) and its wished upstream, and
 * that one every node, for it may change places with any of them. Hosts that cannot be reached are left out.
 */
function pairsToTry(topology: Topology, nodes: readonly ExaminedNode[], chosen: readonly NodeName[]): Pair[] {
  const reached = nodes.filter((node) => node.probe !== null)
  const able = reached.filter((node) => node.facts.binaries !== null)
  const hub = reached.find((node) => node.facts.name === topology.primary) ?? reached[0]
  if (hub === undefined) return []
  const others = reached.filter((node) => node !== hub)
  const pairs = others.flatMap((node) => {
    const upstream = reached.find((one) => one.facts.name === node.settings.upstream)
    const targets = [...new Set([hub, ...(upstream === undefined || upstream === node ? [] : [upstream])])]
    return [...targets.map((to) => ({ from: node, to })), { from: hub, to: node }]
  })
  const isChosen = ({ from, to }: Pair) => chosen.includes(from.facts.name) || chosen.includes(to.facts.name)
  return pairs.filter((pair) => isChosen(pair) && able.includes(pair.from))
}

async function checkReach({ inventory, nodes }: ClusterSession, { from, to }: Pair): Promise<DoctorCheck> {
  const node = nodes.get(from.facts.name)
  if (node === undefined) throw new RangeError(`no connection to node ${from.facts.name}`)
  const isRunning = to.facts.instance !== null
  const reach = await tryReach({ inventory, from: node, facts: from.facts, to: to.settings, isRunning })
  return judgeReach(reach, isRunning)
}

async function checkArchive({ inventory, hosts }: ClusterSession): Promise<readonly DoctorCheck[]> {
  const host = hosts.get(archiveHost)
  if (inventory.archive === undefined || host === undefined) return []
  const { fine, bad } = checksOf(archiveHost)
  try {
    const found = await examineArchive(host, inventory.archive.dir)
    return [
      fine('ssh', `logged in to ${host.settings.host}`),
      'error' in found ? bad('archive', found.error) : fine('archive', found.detail),
      ...(inventory.archive.mode === 'stream' ? await checkStream(host) : []),
    ]
  } catch (thrown) {
    return [bad('ssh', asReplctlError(thrown).with({ node: archiveHost }))]
  }
}

/** What receives the WAL there, and what starts it after a reboot. */
async function checkStream(host: Node): Promise<readonly DoctorCheck[]> {
  const { fine, bad, doubtful } = checksOf(archiveHost)
  const { missing, atBoot } = await examineArchiveStream(host)
  return [
    missing === null ? fine('stream', 'pg_receivewal, psql and flock are there') : bad('stream', missing),
    atBoot === null
      ? fine('stream at boot', "the user's crontab starts it after a reboot")
      : doubtful('stream at boot', atBoot),
  ]
}
