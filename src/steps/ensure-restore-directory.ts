import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stopJob } from '../node/jobs.ts'
import { commandFailed, stateScript } from '../node/node.ts'
import { workLock } from './ensure-data-directory.ts'
import { writeMark } from './ensure-mark.ts'
import { stopInstance } from './fence-instance.ts'
import { look, lookAnew } from './look.ts'
import { notFree, tablespacesOf } from './require-restore-place.ts'
import { isSame, ownRecord, type Restore, writeRestoreRecord } from './restore-record.ts'
import { emptyRestoreScript, makeRestoreDirectoryScript } from './restore-scripts.ts'

export const restoreJob = 'restore'

/** Makes the directory and marks it as this restore's own, before anything goes into it. */
export function ensureRestoreDirectory(restore: Restore): Step {
  return {
    title: 'make the data directory and mark it as our own',
    node: restore.at,
    check: async (ctx) => {
      const record = await ownRecord(ctx)
      if (record === null) return pending('it is not made yet')
      if (record.phase === 'opened') return satisfied('it is in use')
      return isSame(record, restore)
        ? satisfied('it is there and marked')
        : pending('another restore was begun there')
    },
    apply: async (ctx) => {
      const { dataDir } = ctx.node.settings.postgres
      if ((await ownRecord(ctx)) !== null) await emptyRestore(ctx, restore)
      // What an earlier copy ended with says nothing of this one.
      else await stopJob(ctx.node, restoreJob)
      const spaces = [...tablespacesOf(restore, dataDir).values()].filter(() => restore.isMember)
      const command = stateScript(ctx.node, `make ${dataDir}`, makeRestoreDirectoryScript, [
        dataDir,
        ...spaces,
      ])
      const made = await ctx.node.run(command)
      if (made.status === 65) throw notFree(restore, dataDir, [`not-empty\t${dataDir}`])
      if (made.status !== 0) throw commandFailed(restore.node.name, command, made)
      await writeMark(ctx, await look(ctx), 'cloning', restore.choice.systemIdentifier)
      await writeRestoreRecord(ctx, restore, { phase: 'fetching' })
    },
    undo: async (ctx) => {
      if ((await ownRecord(ctx)) === null) return
      await emptyRestore(ctx, restore)
      const script =
        'rm -f "$state/node.json" "$state/restore.json" "$state/tablespaces" "$state/pg_wal_link"; rmdir "$2" 2>/dev/null; :'
      await ctx.node.output(
        stateScript(ctx.node, 'forget the restore', script, [ctx.node.settings.postgres.dataDir]),
      )
    },
  }
}

/** Ends whatever of a restore still runs, and removes what it had put there. */
export async function emptyRestore(ctx: StepContext, restore: Restore): Promise<void> {
  const record = await ownRecord(ctx)
  if (record === null || record.phase === 'opened' || (await lookAnew(ctx)).mark?.phase === 'done') {
    throw new ReplctlError(
      'foreign-data-directory',
      `refused to empty ${ctx.node.settings.postgres.dataDir}`,
      {
        detail: 'It is not, or no longer, an unfinished restore of replctl’s own.',
        node: restore.node.name,
      },
    )
  }
  await stopJob(ctx.node, restoreJob)
  await stopInstance(ctx, restore.at)
  const { dataDir } = ctx.node.settings.postgres
  await ctx.node.output(
    stateScript(ctx.node, `empty ${dataDir}`, `${workLock}${emptyRestoreScript}`, [dataDir]),
    { timeoutMs: 600_000 },
  )
}
