import type { Journal } from '../../engine/journal.ts'
import { ReplctlError } from '../../errors.ts'
import { surveyNodes } from '../../node/survey.ts'
import { type RecoveryTarget, recoveryTargetFlags } from '../../postgres/recovery-target.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { unfinishedOf } from '../operation.ts'

/** How each operation is called again from its journal: its command, arguments and options. */
const calls: Readonly<Record<string, (wish: Journal['wish']) => Pick<Call, 'args' | 'options'>>> = {
  'init primary': (wish) => ({ args: [wish.node as string], options: { adopt: wish.adopt === true } }),
  'add-standby': (wish) => ({
    args: [wish.nodes as string[]],
    options: { from: wish.from ?? undefined, reclone: wish.isReclone === true },
  }),
  promote: (wish) => ({
    args: [(wish.node ?? undefined) as string | undefined],
    options: {
      method: wish.method,
      allowDataLoss: wish.allowDataLoss === true,
      allowSplitBrain: wish.allowSplitBrain === true,
    },
  }),
  backup: (wish) => ({
    args: [],
    options: {
      id: wish.id,
      from: wish.from ?? undefined,
      label: wish.label ?? undefined,
      incremental: wish.isIncremental === true,
    },
  }),
  switchover: (wish) => ({
    args: [(wish.node ?? undefined) as string | undefined],
    options: { allowUnarchived: wish.allowUnarchived === true },
  }),
  rejoin: (wish) => ({
    args: [wish.node as string],
    options: { reclone: wish.isReclone === true, allowDataLoss: wish.allowDataLoss === true },
  }),
  salvage: (wish) => ({ args: [wish.node as string], options: {} }),
  'backup expire': (wish) => ({
    args: [],
    options: { keepFull: wish.keepFull ?? undefined, keepDays: wish.keepDays ?? undefined },
  }),
  restore: (wish) => ({
    args: [wish.node as string],
    options: {
      ...recoveryTargetFlags(wish.target as RecoveryTarget),
      backup: wish.backup ?? undefined,
      timeline: wish.timeline ?? undefined,
      dataDir: wish.dataDir ?? undefined,
      port: wish.port ?? undefined,
      allowSplitBrain: wish.allowSplitBrain === true,
      drill: wish.isDrill === true,
    },
  }),
  'archive prune': (wish) => ({ args: [], options: { keepFrom: wish.keepFrom ?? undefined } }),
  follow: (wish) => ({ args: [wish.node as string], options: { upstream: wish.upstream } }),
  'remove-standby': (wish) => ({ args: [wish.node as string], options: { purge: wish.isPurge === true } }),
}

/** Finds the unfinished operation on the nodes, from whatever control host it was begun. */
export async function findUnfinished(call: Call): Promise<Journal> {
  const session = await openCluster(call)
  try {
    const survey = await surveyNodes([...session.nodes.values()])
    const journal = unfinishedOf(survey)
    if (journal !== null) return journal
    const unreachable = survey.find((facts) => facts.unreachable !== null)
    if (unreachable?.unreachable && survey.every((facts) => facts.unreachable !== null)) {
      throw unreachable.unreachable
    }
    throw new ReplctlError('nothing-to-resume', 'no operation stopped part-way', {
      detail:
        unreachable === undefined
          ? 'No node holds a journal.'
          : `No node that could be reached holds a journal; ${unreachable.name} could not be asked.`,
      hint: 'Look at the cluster with "replctl status".',
    })
  } finally {
    await session.close()
  }
}

/** The call that gives the journal's operation again. */
export function callOf(call: Call, journal: Journal, extra: Readonly<Record<string, unknown>> = {}): Call {
  const again = calls[journal.command]?.(journal.wish)
  if (again === undefined) {
    throw new ReplctlError(
      'cannot-abort',
      `this replctl does not know how to go on with "${journal.command}"`,
      {
        hint:
          journal.command === 'sandbox up'
            ? 'Run it again: replctl sandbox up'
            : 'Use the version of replctl that began it.',
      },
    )
  }
  return { ...call, command: journal.command, args: again.args, options: { ...again.options, ...extra } }
}

/** `replctl resume`. */
export async function run(call: Call): Promise<Answer> {
  return await runAgain(callOf(call, await findUnfinished(call)))
}

/** Carries out a call that was made from a journal. */
export async function runAgain(call: Call): Promise<Answer> {
  const { commands } = await import('../commands/index.ts')
  const spec = commands.find((one) => one.name === call.command)
  if (spec === undefined) throw new RangeError(`no command ${call.command}`)
  return await (await spec.load()).run(call)
}
