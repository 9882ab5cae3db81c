import type { NodeSettings } from '../../cluster/inventory.ts'
import type { Node } from '../../node/node.ts'
import { describeTarget, type RecoveryTarget } from '../../postgres/recovery-target.ts'
import { restoredText } from '../../report/restore.ts'
import { type Restore, readRestoreRecord } from '../../steps/restore-record.ts'
import type { Answer } from '../command-spec.ts'
import type { Decision } from '../operation.ts'

/** What is said of a restore at its end. */
export interface Told {
  readonly node: NodeSettings
  readonly backup: string
  readonly target: RecoveryTarget
  readonly isMember: boolean
  /** Undefined: the one that it was given now. */
  readonly port?: number
}

export const toldOf = ({ node, choice, target, isMember }: Restore): Told => ({
  ...{ node, backup: choice.backup.id, target, isMember },
})

/** A plan, and what is said when it is carried out. */
export function decisionOf(told: Told, on: Node, plan: Decision['plan']): Decision {
  return {
    plan,
    result: async (_after, outcome) => {
      // That of an earlier restore lies there until this one is noted in its place.
      const isOver = outcome.steps.every((step) => step.state !== 'planned')
      const begun = await readRestoreRecord(on)
      const record = begun ?? (isOver ? await readRestoreRecord(on, 'restored.json') : null)
      return {
        node: told.node.name,
        data_dir: on.settings.postgres.dataDir,
        port: told.port ?? on.settings.postgres.port,
        backup: told.backup,
        timeline: record?.newTimeline ?? null,
        target: describeTarget(told.target),
        reached_lsn: record?.reachedLsn ?? null,
        reached_time: record?.reachedTime ?? null,
      }
    },
    text: (_after, _outcome, paint, result) => restoredText(result as never, told.isMember, paint),
  }
}

/** Steps and problems of the instance beside a node are told as that node's. */
export function ofNode(answer: Answer, beside: string, node: string): Answer {
  const steps = (answer.result as { steps?: readonly { node: string }[] } | null)?.steps ?? []
  return {
    ...answer,
    result: {
      ...answer.result,
      steps: steps.map((step) => (step.node === beside ? { ...step, node } : step)),
    },
    problems: answer.problems.map((one) => ({
      ...one,
      node: one.node === beside ? node : one.node,
      message: one.message.replaceAll(beside, node),
    })),
  }
}
