import { judgeExpiry } from '../../cluster/judge-expiry.ts'
import { primaryLineOf } from '../../cluster/living-line.ts'
import { ReplctlError } from '../../errors.ts'
import type { PrunedArchive } from '../../node/prune-archive.ts'
import { expiredText } from '../../report/backups.ts'
import { expireBackups } from '../../runbooks/expire-backups.ts'
import { catalogsOf, openArchive } from '../archive-session.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { operate } from '../operation.ts'

/** `replctl backup expire [--keep-full N] [--keep-days D]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const keepFull = readCount('--keep-full', call.options.keepFull, 1)
    const keepDays = readCount('--keep-days', call.options.keepDays, 0)
    if (keepFull === undefined && keepDays === undefined) {
      throw new ReplctlError('usage', 'backup expire needs to be told what to keep', {
        hint: 'For example: replctl backup expire --keep-full 2 --keep-days 14 --dry-run',
      })
    }
    const archive = await openArchive(session)
    return await operate(call, {
      session,
      wish: { keepFull: keepFull ?? null, keepDays: keepDays ?? null },
      isAside: true,
      decide: async ({ survey, topology }) => {
        const [catalog, ...others] = await catalogsOf(session, archive, survey)
        if (catalog === undefined || others.length > 0) throw unknownCluster(others.length)
        const primary = primaryLineOf(survey, topology.primary)
        const wish = { keepFull, keepDays, nowMs: Date.now(), primary }
        const { remove, keep, firstSegment } = judgeExpiry(catalog, wish)
        let pruned: PrunedArchive = { files: 0, bytes: 0, first: null, last: null }
        const plan = { archive: archive.settings, systemIdentifier: catalog.systemIdentifier, wish }
        return {
          plan: expireBackups(plan, remove, (one) => {
            pruned = one
          }),
          result: () => ({
            ...{ removed: remove, kept: keep },
            wal: { before: firstSegment, files: pruned.files, bytes: pruned.bytes },
          }),
          text: (_after, _outcome, paint, result) => expiredText(result as never, paint),
        }
      },
    })
  } finally {
    await session.close()
  }
}

function readCount(flag: string, value: unknown, least: number): number | undefined {
  if (value === undefined) return undefined
  if (/^\d{1,6}$/.test(String(value)) && Number(value) >= least) return Number(value)
  throw new ReplctlError('usage', `${flag}: "${String(value)}" is not a whole number from ${least} on`)
}

function unknownCluster(others: number): ReplctlError {
  return new ReplctlError(
    'no-backup',
    others === 0
      ? 'the archive holds no backup of this cluster'
      : 'the archive holds several clusters of this name',
    {
      detail: 'No node could say which system identifier is meant.',
      hint: 'Bring a node of the cluster back first.',
    },
  )
}
