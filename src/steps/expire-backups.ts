import type { ArchiveSettings } from '../cluster/inventory.ts'
import { type ExpiryWish, judgeExpiry } from '../cluster/judge-expiry.ts'
import { archiveHost } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { type PrunedArchive, pruneArchive } from '../node/prune-archive.ts'
import { readCatalog } from '../node/read-catalog.ts'

export interface ExpiryPlan {
  readonly archive: ArchiveSettings
  readonly systemIdentifier: string
  readonly wish: ExpiryWish
}

/** It is no longer listed before anything of it is removed: a half-removed backup is never taken for a good one. */
const removeScript = `
cd "$1" || exit 66
rm -rf .removed-*
[ -d "$2" ] || exit 0
mv "$2" ".removed-$2" || exit 74
sync . 2>/dev/null || sync
rm -rf ".removed-$2"
`

/** Removes one backup, if the rules still say so when its turn comes. */
export function removeBackup(plan: ExpiryPlan, id: string): Step {
  const { archive, systemIdentifier, wish } = plan
  return {
    title: `remove backup ${id}`,
    node: archiveHost,
    check: async (ctx) => {
      const catalog = await readCatalog(ctx.node, archive.dir, systemIdentifier)
      return catalog.backups.some((one) => one.id === id)
        ? pending('it is past retention')
        : satisfied('it is gone')
    },
    apply: async (ctx) => {
      const catalog = await readCatalog(ctx.node, archive.dir, systemIdentifier)
      if (!judgeExpiry(catalog, wish).remove.includes(id)) {
        throw new ReplctlError('backup-damaged', `backup ${id} is needed again and was not removed`, {
          detail: 'Another backup was damaged or removed meanwhile.',
          hint: 'Look: replctl backup list',
          node: archiveHost,
        })
      }
      await ctx.node.output(
        shellScript(`remove backup ${id}`, removeScript, [`${archive.dir}/${systemIdentifier}/backup`, id]),
        { timeoutMs: 600_000 },
      )
    },
  }
}

/** Removes WAL that lies before the first segment which a kept backup needs, on every timeline; history files stay. */
export function pruneWal(plan: ExpiryPlan, tell: (pruned: PrunedArchive) => void): Step {
  const { archive, systemIdentifier, wish } = plan
  const prune = async (ctx: StepContext, isDryRun: boolean, isAfter: boolean) => {
    const catalog = await readCatalog(ctx.node, archive.dir, systemIdentifier)
    const { firstSegment, remove } = judgeExpiry(catalog, wish)
    if (firstSegment === null || (isAfter && remove.length > 0)) return null
    return await pruneArchive(ctx.node, {
      dir: archive.dir,
      systemIdentifier,
      before: firstSegment,
      isDryRun,
    })
  }
  const folder = `${archive.dir}/${systemIdentifier}/backup`
  const isCutOff = async (ctx: StepContext) => {
    const script = 'for at in "$1"/.removed-*; do [ ! -e "$at" ] || echo there; done'
    return (await ctx.node.output(shellScript('look for removed backups', script, [folder]))) !== ''
  }
  return {
    title: 'remove WAL that no kept backup needs',
    node: archiveHost,
    check: async (ctx) => {
      try {
        if (await isCutOff(ctx)) return pending('what is left of a removal that was cut off goes, too')
        const would = await prune(ctx, true, false)
        if (would === null || would.files === 0) return satisfied('there is none')
        if (ctx.isDryRun) tell(would)
        return pending(`${would.files} files, from ${would.first} to ${would.last}`)
      } catch (thrown) {
        return refused(asReplctlError(thrown))
      }
    },
    apply: async (ctx) => {
      const clear = 'cd "$1" 2>/dev/null && rm -rf .removed-*; :'
      await ctx.node.output(shellScript('clear removed backups away', clear, [folder]), {
        timeoutMs: 600_000,
      })
      const pruned = await prune(ctx, false, true)
      if (pruned !== null) tell(pruned)
    },
  }
}
