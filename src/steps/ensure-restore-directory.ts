import { pending, type Step, satisfied } from '../engine/step.ts'
import { stopJob } from '../node/jobs.ts'
import { commandFailed, stateScript } from '../node/node.ts'
import { emptyRestore, forgetRestoreScript, restoreJob } from './end-restore.ts'
import { writeMark } from './ensure-mark.ts'
import { look } from './look.ts'
import { notFree, tablespacesOf } from './require-restore-place.ts'
import { isSame, ownRecord, type Restore, writeRestoreRecord } from './restore-record.ts'
import { makeRestoreDirectoryScript } from './restore-scripts.ts'

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
      const script = `${forgetRestoreScript} "$state/node.json"; rmdir "$2" 2>/dev/null; :`
      await ctx.node.output(
        stateScript(ctx.node, 'forget the restore', script, [ctx.node.settings.postgres.dataDir]),
      )
    },
  }
}
