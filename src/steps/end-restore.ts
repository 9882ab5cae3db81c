import { createHash } from 'node:crypto'
import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import { wasStarted } from '../cluster/judge-restore.ts'
import type { StepContext } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stopJob } from '../node/jobs.ts'
import { stateScript } from '../node/node.ts'
import { stopInstance } from './fence-instance.ts'
import { lookAnew } from './look.ts'
import { ownRecord } from './restore-record.ts'
import { emptyRestoreScript } from './restore-scripts.ts'
import { workLock } from './work-lock.ts'

export const restoreJob = 'restore'

/** Folder of the socket while it recovers. Short, for a socket's path has room for some hundred characters. */
export function recoverySocketOf(dataDir: string): string {
  return `/tmp/.replctl-${createHash('sha256').update(dataDir).digest('hex').slice(0, 10)}`
}

/** What runs in the data directory is a restore's own server: it answers in a folder where nobody else asks. */
export function isRecoveringAlone({ postmaster }: NodeFacts, { postgres }: NodeSettings): boolean {
  return postmaster?.isAlive === true && postmaster.socketDirectory === recoverySocketOf(postgres.dataDir)
}

/**
 * Ends whatever of a restore still runs, and removes what it had put there.
 * @throws {ReplctlError} `foreign-data-directory` where it is no unfinished restore; `primary-alive` where somebody else has started what
 * is to become the primary, for that may have been written to
 */
export async function emptyRestore(
  ctx: StepContext,
  { node, isMember }: { readonly node: NodeSettings; readonly isMember: boolean },
): Promise<void> {
  const { dataDir } = ctx.node.settings.postgres
  const record = await ownRecord(ctx)
  const facts = await lookAnew(ctx)
  if (record === null || record.phase === 'opened' || facts.mark?.phase === 'done') {
    throw new ReplctlError('foreign-data-directory', `refused to empty ${dataDir}`, {
      detail: 'It is not, or no longer, an unfinished restore of replctl’s own.',
      node: node.name,
    })
  }
  const isStarted = facts.instance?.isInRecovery === false && !isRecoveringAlone(facts, ctx.node.settings)
  if (isMember && isStarted) throw wasStarted(node)
  await stopJob(ctx.node, restoreJob)
  await stopInstance(ctx, ctx.node.name)
  await ctx.node.output(
    stateScript(ctx.node, `empty ${dataDir}`, `${workLock}${emptyRestoreScript}`, [dataDir]),
    { timeoutMs: 600_000 },
  )
}

/** Forgets a restore whose data is gone; the mark of the directory goes with the directory. */
export const forgetRestoreScript = 'rm -f "$state/restore.json" "$state/tablespaces" "$state/pg_wal_link"'

/**
 * A restore was begun in the directory that something else is about to fill or delete: its job would go on extracting, its server go on
 * replaying, into what comes after it.
 */
export async function endUnfinishedRestore(ctx: StepContext): Promise<void> {
  const record = await ownRecord(ctx)
  if (record === null || record.phase === 'opened') return
  await emptyRestore(ctx, { node: ctx.node.settings, isMember: true })
  await ctx.node.output(stateScript(ctx.node, 'forget the restore', forgetRestoreScript))
}
