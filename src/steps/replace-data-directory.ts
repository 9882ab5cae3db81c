import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stopJob } from '../node/jobs.ts'
import { commandFailed, stateScript } from '../node/node.ts'
import { serviceOf } from '../node/service.ts'
import { asItWillBe, emptied } from './as-it-will-be.ts'
import { writeMark } from './ensure-mark.ts'
import { stopInstance } from './fence-instance.ts'
import { binDirectoryOf, look } from './look.ts'
import { findLostFound } from './lost-found.ts'
import { realFolderScript } from './real-folder.ts'
import {
  asideSuffix,
  canMoveScript,
  cannotMove,
  deleteAsideScript,
  goneSuffix,
  moveAsideScript,
  putAsideBackScript,
} from './reclone-scripts.ts'
import { isBegun, purgeDataDirectory } from './remove-node.ts'
import { rewindJob } from './rewind-data-directory.ts'
import { workLock } from './work-lock.ts'

/** What is to be replaced is nothing, a clone that was begun, or a standby of this cluster: looked at before anything is done. */
export function requireReplaceableDataDirectory(
  node: NodeName,
  primary: NodeName,
  options: { readonly isResumed?: boolean | undefined } = {},
): Step {
  const move = moveDataDirectoryAside(node, primary, options)
  return {
    title: `require a data directory that may be replaced: a standby of ${primary}'s cluster`,
    node,
    check: async (ctx) => {
      const finding = await move.check(ctx)
      if (finding.is === 'refused') return finding
      // Where it cannot be moved aside it is emptied, and pg_basebackup would not fill it again.
      const error = await findLostFound(ctx, finding.is === 'pending' ? 'data_dir' : 'both')
      if (error !== null) return refused(error)
      if (finding.is !== 'pending') return finding
      if (!(await canBeMoved(ctx))) ctx.warn(goesInPlace(node, ctx.node.settings.postgres.dataDir))
      return satisfied(finding.because)
    },
  }
}

/** A rename, and before it a wait for what a killed run left at work. */
const lockAndMoveMs = 120_000

export const moveAsideTitle = 'stop the old standby and move its data directory aside'

/**
 * Puts a data directory that is to be replaced aside, under a name that says why; restores it if the clone fails. A whole clone
 * that never came to stream is the one to be replaced, unless it is what this very operation made.
 */
export function moveDataDirectoryAside(
  node: NodeName,
  primary: NodeName,
  { isResumed = false }: { readonly isResumed?: boolean | undefined } = {},
): Step {
  const purge = purgeDataDirectory(node, primary)
  return {
    title: moveAsideTitle,
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const { dataDir } = ctx.node.settings.postgres
      if (facts.dataDirectoryState === 'missing' || facts.dataDirectoryState === 'empty') {
        return satisfied(`${dataDir} is ${facts.dataDirectoryState}`)
      }
      const phase = facts.mark?.inode === facts.dataDirectoryInode ? facts.mark?.phase : undefined
      const isNew = phase === 'cloning' || (phase === 'cloned' && (isResumed || (await isAside(ctx))))
      if (isNew) return satisfied(`${dataDir} is the new clone`)
      return await purge.check(ctx)
    },
    apply: async (ctx) => {
      // What an earlier one left may take long to delete: the standby streams meanwhile.
      await deleteAside(ctx)
      await stopInstance(ctx, node)
      await stopJob(ctx.node, rewindJob)
      const command = onDirectory(ctx, 'move it aside', moveAsideScript)
      const moved = await ctx.node.run(command, { timeoutMs: lockAndMoveMs })
      if (moved.status === 0) return
      if (moved.status !== cannotMove) throw commandFailed(node, command, moved)
      // A mount point cannot be renamed: its content, proved to be a stopped standby's, is removed in place.
      await purge.apply?.(ctx)
    },
    undo: async (ctx) => {
      const command = onDirectory(ctx, 'put it back', putAsideBackScript)
      await ctx.node.output(command, { timeoutMs: lockAndMoveMs })
      const facts = await look(ctx)
      if (facts.postmaster?.isAlive === true) return
      if (facts.dataDirectoryState !== 'instance' || isBegun(facts)) throw isGone(node)
      if (facts.mark === null) await writeMark(ctx, facts, 'done', facts.control?.systemIdentifier ?? '')
      const service = serviceOf(ctx.node, facts, binDirectoryOf(facts))
      await ctx.node.output(service.start, { timeoutMs: ctx.timeoutMs })
    },
  }
}

/**
 * For what builds a clone in the place of an old standby: it is taken back only while that is there. Where it was removed in
 * place, a whole copy is the only one on this node, and stays. Where it is back already, what stands there is not the clone.
 */
export function whileOldIsAside(step: Step): Step {
  const { undo } = step
  if (undo === undefined) return step
  return {
    ...step,
    undo: async (ctx) => {
      if (isWhole(await look(ctx)) && !(await isAside(ctx))) {
        if (await canBeMoved(ctx)) return
        throw isOnlyCopy(ctx.node.name)
      }
      await undo.call(step, ctx)
    },
  }
}

function isWhole({ mark, dataDirectoryInode, dataDirectoryState }: NodeFacts): boolean {
  const isOurs = mark?.inode === dataDirectoryInode && dataDirectoryInode !== ''
  return dataDirectoryState === 'instance' && isOurs && (mark.phase === 'cloned' || mark.phase === 'done')
}

/** For those of them that work on the data directory: a plan sees it as it will be once `move` is done. */
export function onceMovedAside(step: Step, move: Step): Step {
  return asItWillBe(step, async (ctx) => ((await move.check(ctx)).is === 'pending' ? emptied : null))
}

/** The old directory goes only after its successor streams. From then on that is the only one: it is not taken back. */
export function deleteDataDirectoryAside(
  node: NodeName,
  { isReplacing = false }: { readonly isReplacing?: boolean | undefined } = {},
): Step {
  return {
    title: 'delete the old data directory that was moved aside',
    node,
    cannotBeUndone: true,
    check: async (ctx) => {
      const left = await findBeside(ctx, asideSuffix, goneSuffix)
      if (left !== '') return pending(`${left} is there`)
      return ctx.isDryRun && isReplacing && (await canBeMoved(ctx))
        ? unknownUntil('the new clone streams')
        : satisfied('there is none')
    },
    apply: deleteAside,
  }
}

async function deleteAside(ctx: StepContext): Promise<void> {
  const command = onDirectory(ctx, 'delete what was moved aside', deleteAsideScript)
  await ctx.node.output(command, { timeoutMs: 3_600_000 })
}

/** One at a time works on the data directory, whoever began it; the script has its path as `$1`. */
function onDirectory({ node }: StepContext, what: string, script: string) {
  const { dataDir } = node.settings.postgres
  return stateScript(node, `${dataDir}: ${what}`, `${workLock}shift\n${script}`, [dataDir])
}

/** Whether an old data directory waits for its successor to stream. */
export async function isAside(ctx: Pick<StepContext, 'node'>): Promise<boolean> {
  return (await findBeside(ctx, asideSuffix)) !== ''
}

const besideScript = `${realFolderScript}
data=$(real_folder "$1"); shift
for suffix; do if [ -e "$data$suffix" ]; then printf '%s\n' "$data$suffix"; exit 0; fi; done
`

/** The first of what stands beside the data directory under its name with one of these suffixes; empty: nothing. */
async function findBeside(ctx: Pick<StepContext, 'node'>, ...suffixes: readonly string[]): Promise<string> {
  const { dataDir } = ctx.node.settings.postgres
  const title = `look for ${suffixes.map((suffix) => `${dataDir}${suffix}`).join(', ')}`
  const command = shellScript(title, besideScript, [dataDir, ...suffixes])
  const result = await ctx.node.read(command)
  // No answer is not the answer that there is none.
  if (result.status !== 0) throw commandFailed(ctx.node.name, command, result)
  return result.stdout.trim()
}

/** Whether the data directory can be renamed where it is. */
export async function canBeMoved(ctx: Pick<StepContext, 'node'>): Promise<boolean> {
  const { dataDir } = ctx.node.settings.postgres
  const script = `${canMoveScript}can_move "$1" && echo yes; :`
  const { stdout } = await ctx.node.read(
    shellScript(`look whether ${dataDir} can be renamed`, script, [dataDir]),
  )
  return stdout.trim() === 'yes'
}

function goesInPlace(node: NodeName, dataDir: string): ReplctlError {
  return new ReplctlError(
    'old-data-not-kept',
    `the old data of ${node} cannot be kept until the new clone streams`,
    {
      detail: `${dataDir} cannot be renamed: it is (or is a link to) a mount point, or its parent is not writable. It is emptied before the copy begins.`,
      hint: 'If the copy fails, there is no way back: "replctl resume" copies again. To keep the old data, give data_dir a folder below the mount point.',
      node,
    },
  )
}

function isGone(node: NodeName): ReplctlError {
  return new ReplctlError('cannot-abort', `the old data of ${node} cannot be put back: it is deleted`, {
    detail: 'Its data directory could not be renamed, and was emptied before the copy began.',
    hint: 'Only a new copy helps: replctl resume',
    node,
  })
}

function isOnlyCopy(node: NodeName): ReplctlError {
  return new ReplctlError('cannot-abort', `the new copy on ${node} stays: the old data is deleted`, {
    detail: 'Its data directory could not be renamed, and was emptied before the copy began.',
    hint: 'Go on with it: replctl resume',
    node,
  })
}
