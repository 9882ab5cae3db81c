import type { NodeSettings } from '../../cluster/inventory.ts'
import { type Problem, problemOf } from '../../cluster/problem.ts'
import { isRunningStandby, observeTopology, type Topology } from '../../cluster/topology.ts'
import { exitCodes, ReplctlError } from '../../errors.ts'
import { surveyNodes } from '../../node/survey.ts'
import { drillText } from '../../report/restore.ts'
import { drill } from '../../runbooks/restore.ts'
import type { DrillNotes } from '../../steps/drill.ts'
import type { Restore } from '../../steps/restore-record.ts'
import { archiveOf, openArchive } from '../archive-session.ts'
import { findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { operate, requireReachable } from '../operation.ts'
import { choose } from './choose-restore.ts'
import { besideOf, openBeside, requireAbsolute } from './restore.ts'
import { ofNode } from './restore-answer.ts'
import { undoRestore } from './restore-undo.ts'

/** `replctl restore --drill [NODE] [--backup ID] [--data-dir DIR]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const { inventory, templates } = session
    refuseTargets(call)
    const wished = call.options.dataDir as string | undefined
    if (wished !== undefined) requireAbsolute(wished)
    const named = call.args[0] as string | undefined
    const archive = call.options.isAbort === true ? archiveOf(session) : await openArchive(session)
    const nodes = [...session.nodes.values()]
    const node =
      named === undefined
        ? chooseHost(observeTopology(inventory, await surveyNodes(nodes)), inventory.nodes)
        : findNode(inventory, named)
    const dataDir = besideOf(wished ?? `${node.postgres.dataDir}.replctl-drill`, node)
    const backup = call.options.backup as string | undefined
    const beside = await openBeside(session, node, dataDir, undefined)
    const notes: DrillNotes = { before: null, report: null }
    try {
      const answer = await operate(call, {
        session: { ...session, hosts: new Map([...session.hosts, [beside.name, beside]]) },
        wish: { node: node.name, isDrill: true, target: { kind: 'latest' }, backup: backup ?? null, dataDir },
        isAside: true,
        decide: async (observation) => {
          const { survey, topology } = observation
          requireReachable(survey, [node.name])
          const target = { kind: 'latest' } as const
          if (call.options.isAbort === true) {
            return await undoRestore(session, observation, { node, target, isMember: false }, beside)
          }
          const choice = await choose(session, archive, observation, { target, backup, timeline: undefined })
          const restore: Restore = {
            ...{ archive: archive.settings, node, at: beside.name, choice, target, isMember: false },
          }
          return {
            plan: drill({ inventory, templates }, restore, topology.primary, notes),
            result: () => ({
              ...{ node: node.name, data_dir: dataDir, backup: choice.backup.id },
              ...{ checked_with: notes.report?.checked_with ?? null, tables: notes.report?.tables ?? [] },
              findings: notes.report?.findings ?? [],
            }),
            text: (_after, _outcome, paint, result) => drillText(result as never, paint),
          }
        },
      })
      return judged(ofNode(answer, beside.name, node.name), notes)
    } finally {
      await beside.closeSql()
    }
  } finally {
    await session.close()
  }
}

function refuseTargets({ options }: Call): void {
  const given = ['toTime', 'toLsn', 'toName', 'toXid', 'toImmediate', 'timeline', 'port'].filter(
    (name) => options[name] !== undefined,
  )
  if (given.length === 0) return
  throw new ReplctlError('usage', '--drill always goes to the end of the archive: it takes no target')
}

/** A standby's host, so that the primary's is spared. */
function chooseHost(topology: Topology, nodes: readonly NodeSettings[]): NodeSettings {
  const standby = topology.nodes.find((node) => isRunningStandby(node.facts))?.settings
  const reachable = topology.nodes.find((node) => node.facts.unreachable === null)?.settings
  const chosen = standby ?? reachable ?? nodes[0]
  if (chosen === undefined) throw new ReplctlError('usage', 'the inventory has no nodes')
  return chosen
}

/** A drill is a check: whatever it shows to be wrong, the restore itself included, is exit code 9. */
function judged(answer: Answer, { report }: DrillNotes): Answer {
  const findings = (report?.findings ?? []).map(
    (line): Problem =>
      problemOf(
        new ReplctlError('backup-damaged', `the drill found: ${line}`, {
          hint: 'Verify the backup and the archive: replctl backup verify',
        }),
      ),
  )
  const hasFailed = answer.exitCode === exitCodes.undone
  return {
    ...answer,
    // It leaves nothing behind.
    changed: false,
    exitCode: findings.length > 0 || hasFailed ? exitCodes.unhealthy : answer.exitCode,
    problems: [...findings, ...answer.problems],
  }
}
