import { createHash } from 'node:crypto'
import type { NodeSettings } from '../../cluster/inventory.ts'
import { judgeRestore, needsReclone } from '../../cluster/judge-restore.ts'
import { besideNode } from '../../cluster/names.ts'
import { problemOf } from '../../cluster/problem.ts'
import { clusterIdentifier } from '../../cluster/record.ts'
import { shellScript } from '../../command.ts'
import { inOrder } from '../../engine/step.ts'
import { ReplctlError } from '../../errors.ts'
import { listenArgs, listenScript } from '../../node/listen-script.ts'
import { createNode, type Node } from '../../node/node.ts'
import { parseRecoveryTarget, type RecoveryTarget } from '../../postgres/recovery-target.ts'
import { restoreBeside, restoreCluster } from '../../runbooks/restore.ts'
import { isRecoveringAlone } from '../../steps/end-restore.ts'
import {
  finishedRestore,
  type Restore,
  type RestoreRecord,
  readRestoreRecord,
  unfinishedRestore,
} from '../../steps/restore-record.ts'
import { type ArchiveAccess, archiveOf, openArchive } from '../archive-session.ts'
import { type ClusterSession, findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { fenceCommandOf } from '../local-command.ts'
import { type Observation, operate, requireReachable } from '../operation.ts'
import { choose } from './choose-restore.ts'
import { refuseBesideUnknownLeader } from './refuse-beside-unknown-leader.ts'
import { decisionOf, ofNode, type Told, toldOf } from './restore-answer.ts'
import { undoRestore } from './restore-undo.ts'

/** What was asked for, as far as the command line says it. */
interface Asked {
  readonly node: NodeSettings
  readonly target: RecoveryTarget
  readonly backup: string | undefined
  readonly timeline: number | undefined
  readonly dataDir: string | undefined
  readonly port: number | undefined
  readonly allowSplitBrain: boolean
}

/** `replctl restore NODE [--backup ID] [--to-…] [--data-dir DIR] [--port P]`. */
export async function run(call: Call): Promise<Answer> {
  if (call.options.drill === true) return await (await import('./restore-drill.ts')).run(call)
  const session = await openCluster(call)
  try {
    const asked = readAsked(call, session)
    const archive = call.options.isAbort === true ? archiveOf(session) : await openArchive(session)
    if (asked.dataDir === undefined) return await restoreNode(call, session, archive, asked)
    return await restoreAside(call, session, archive, asked, asked.dataDir)
  } finally {
    await session.close()
  }
}

/** Everything that is wrong with the command line is said before any host is contacted. */
function readAsked(call: Call, { inventory }: ClusterSession): Asked {
  const { options } = call
  const named = call.args[0] as string | undefined
  if (named === undefined) {
    throw new ReplctlError('usage', 'restore needs the name of a node', {
      hint: `For example: replctl restore ${inventory.nodes[0]?.name} --latest`,
    })
  }
  const node = findNode(inventory, named)
  const dataDir = options.dataDir as string | undefined
  if (dataDir !== undefined) requireAbsolute(dataDir)
  if (dataDir === undefined && options.port !== undefined) {
    throw new ReplctlError(
      'usage',
      '--port goes with --data-dir: the node’s own port stands in the inventory',
    )
  }
  return {
    ...{ node, dataDir: dataDir === undefined ? undefined : besideOf(dataDir, node) },
    target: readTarget(options),
    backup: options.backup as string | undefined,
    timeline: readNumber('--timeline', options.timeline, 0xffff_ffff),
    port: readNumber('--port', options.port, 65_535),
    allowSplitBrain: options.allowSplitBrain === true,
  }
}

/** `--data-dir` as the command line gives it. @throws {ReplctlError} `usage` */
export function requireAbsolute(dataDir: string): void {
  if (/^\/[^\0\r\n]+$/.test(dataDir)) return
  throw new ReplctlError('usage', `--data-dir: "${dataDir}" is not an absolute path`)
}

/** A directory beside a node's own. @throws {ReplctlError} `usage` where it is that one */
export function besideOf(dataDir: string, node: NodeSettings): string {
  if (trimmed(dataDir) !== trimmed(node.postgres.dataDir)) return trimmed(dataDir)
  throw new ReplctlError('usage', `--data-dir: ${dataDir} is the node’s own data directory`, {
    hint: `To restore the cluster there: replctl restore ${node.name}, without --data-dir.`,
  })
}

const trimmed = (path: string): string => path.replace(/(?<=.)\/+$/, '')

function readTarget(options: Call['options']): RecoveryTarget {
  try {
    return parseRecoveryTarget(options)
  } catch (thrown) {
    throw new ReplctlError('target-invalid', thrown instanceof Error ? thrown.message : String(thrown))
  }
}

function readNumber(flag: string, value: unknown, most: number): number | undefined {
  if (value === undefined) return undefined
  const number = Number(value)
  if (/^\d+$/.test(String(value)) && number >= 1 && number <= most) return number
  throw new ReplctlError('usage', `${flag}: "${String(value)}" is not a number from 1 to ${most}`)
}

/** Disaster recovery: into the node's own data directory. */
async function restoreNode(
  call: Call,
  session: ClusterSession,
  archive: ArchiveAccess,
  asked: Asked,
): Promise<Answer> {
  const { inventory, templates } = session
  const { node } = asked
  return await operate(call, {
    session,
    wish: wishOf(asked),
    decide: async (observation) => {
      requireReachable(observation.survey, [node.name])
      const own = session.nodes.get(node.name) as Node
      if (call.options.isAbort === true) {
        return await undoRestore(session, observation, { ...asked, isMember: true }, own)
      }
      const finished = await finishedOf(own, asked, observation)
      if (finished !== null && observation.topology.primary === node.name) {
        const reclone = nobodyElse(observation, node).toReclone
        const warnings = reclone.map((name) => problemOf(needsReclone(name, node.name), 'warning'))
        return { ...decisionOf(ended(finished, asked), own, inOrder([])), problems: warnings }
      }
      const begun = await unfinishedRestore(own, asked)
      const leads = observation.topology.primary === node.name
      const facts = observation.survey.find(({ name }) => name === node.name)
      const verdict =
        begun?.phase === 'opened' && leads
          ? nobodyElse(observation, node)
          : judgeRestore(inventory, observation.topology, node, {
              isGoingOn: begun !== null && facts !== undefined && isRecoveringAlone(facts, node),
            })
      if (!(begun?.phase === 'opened' && leads)) {
        await refuseBesideUnknownLeader(session, observation, {
          ...{
            candidate: node.name,
            what: `restore onto ${node.name}`,
            allowSplitBrain: asked.allowSplitBrain,
          },
        })
      }
      const choice = await choose(session, archive, observation, { ...asked, ...chosenBy(begun) })
      const restore: Restore = {
        ...{ archive: archive.settings, node, at: node.name, choice, target: asked.target, isMember: true },
      }
      const plan = restoreCluster(
        { inventory, templates },
        {
          ...{
            restore,
            toFence: verdict.toFence,
            others: verdict.others,
            allowSplitBrain: asked.allowSplitBrain,
          },
          toReclone: verdict.toReclone,
          absent: verdict.absent.map((name) => ({
            node: findNode(inventory, name),
            systemIdentifier: clusterIdentifier(observation.survey),
          })),
          unreachable: verdict.unreachable.map((name) => findNode(inventory, name)),
          fence: fenceCommandOf(inventory, call),
        },
      )
      return decisionOf(toldOf(restore), own, plan)
    },
  })
}

const chosenBy = (begun: RestoreRecord | null) =>
  begun === null ? {} : { backup: begun.backup, timeline: begun.timeline }

/** A run that was killed behind its last step leaves nothing to do but to clear its journal. */
async function finishedOf(on: Node, asked: Asked, { resumed }: Observation): Promise<RestoreRecord | null> {
  // What becomes the primary crosses the point of no return: without that, an older record is meant.
  const isBehind = resumed !== null && (resumed.isPastPointOfNoReturn || asked.dataDir !== undefined)
  return isBehind ? await finishedRestore(on, asked) : null
}

const ended = ({ backup, port }: RestoreRecord, { node, target, dataDir }: Asked): Told => ({
  ...{ node, backup, target, port, isMember: dataDir === undefined },
})

/** The restored node leads already: only the end of the operation is left. */
function nobodyElse({ survey }: Observation, node: NodeSettings) {
  const others = survey
    .filter((facts) => facts.name !== node.name && facts.unreachable === null)
    .map((facts) => facts.name)
  return { toFence: [], unreachable: [], absent: [], toReclone: others, others }
}

/** Beside the cluster, into a directory of its own. */
async function restoreAside(
  call: Call,
  session: ClusterSession,
  archive: ArchiveAccess,
  asked: Asked,
  dataDir: string,
): Promise<Answer> {
  const { inventory, templates } = session
  const beside = await openBeside(session, asked.node, dataDir, asked.port)
  try {
    const answer = await operate(call, {
      session: { ...session, hosts: new Map([...session.hosts, [beside.name, beside]]) },
      wish: wishOf(asked),
      isAside: true,
      decide: async (observation) => {
        requireReachable(observation.survey, [asked.node.name])
        if (call.options.isAbort === true) {
          return await undoRestore(session, observation, { ...asked, isMember: false }, beside)
        }
        const finished = await finishedOf(beside, asked, observation)
        if (finished !== null) return decisionOf(ended(finished, asked), beside, inOrder([]))
        const begun = await unfinishedRestore(beside, asked)
        const choice = await choose(session, archive, observation, { ...asked, ...chosenBy(begun) })
        const restore: Restore = {
          ...{ archive: archive.settings, node: asked.node, at: beside.name, choice, target: asked.target },
          isMember: false,
        }
        return decisionOf(toldOf(restore), beside, restoreBeside({ inventory, templates }, restore))
      },
    })
    return ofNode(answer, beside.name, asked.node.name)
  } finally {
    await beside.closeSql()
  }
}

/**
 * A place beside a node's own instance: the same host, another directory, port and state directory. What an
 * interrupted restore had chosen stays chosen.
 */
export async function openBeside(
  session: ClusterSession,
  node: NodeSettings,
  dataDir: string,
  wishedPort: number | undefined,
): Promise<Node> {
  const host = session.nodes.get(node.name) as Node
  await host.transport.connect().catch((thrown: unknown) => {
    throw thrown instanceof ReplctlError ? thrown.with({ node: node.name }) : thrown
  })
  const mark = createHash('sha256').update(dataDir).digest('hex').slice(0, 10)
  const make = (port: number) =>
    createNode(
      {
        ...node,
        ...{ name: besideNode(node.name), stateDir: `${node.stateDir}/restore-${mark}` },
        applicationName: `${node.applicationName}_restored`,
        postgres: { ...node.postgres, dataDir, port, service: 'pg_ctl' },
      },
      session.inventory.cluster,
      host.transport,
    )
  const record = await readRestoreRecord(make(wishedPort ?? node.postgres.port))
  return make(wishedPort ?? record?.port ?? (await freePort(host, node.postgres.port + 1)))
}

async function freePort(host: Node, from: number): Promise<number> {
  for (let port = Math.max(from, 1_025); port < from + 50; port += 1) {
    const listens = await host.output(
      shellScript(`look who listens on port ${port}`, listenScript, listenArgs({ port, parameters: {} })),
    )
    if (listens.trim() === '') return port
  }
  throw new ReplctlError('port-in-use', `found no free port from ${from} on`, {
    hint: 'Name one: --port P',
    node: host.name,
  })
}

function wishOf(asked: Asked): Record<string, unknown> {
  const { node, target, backup, timeline, dataDir, port, allowSplitBrain } = asked
  return {
    ...{ node: node.name, target, backup: backup ?? null, timeline: timeline ?? null },
    ...{ dataDir: dataDir ?? null, port: port ?? null, allowSplitBrain },
  }
}
