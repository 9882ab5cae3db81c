import type { RejoinMark } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { rejoinUnderWay } from '../cluster/rejoin-under-way.ts'
import type { SalvageRecord } from '../cluster/salvage.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { shellScript } from '../command.ts'
import {
  cannotBeUndone,
  pending,
  type Step,
  type StepContext,
  satisfied,
  unknownUntil,
} from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readTextFile } from '../node/files.ts'
import { stateScript } from '../node/node.ts'
import { removeStateFile, writeStateFile } from './ensure-mark.ts'
import { look, lookAnew } from './look.ts'
import { removeKeptFiles } from './prepare-rewind.ts'
import { writeRejoinMark } from './rewind-data-directory.ts'
import { readSalvage } from './salvage-diverged.ts'
import { asideMark } from './set-data-directory-aside.ts'
import { workLock } from './work-lock.ts'

const deleteScript = `
aside=$2
${workLock}
case $aside in *${asideMark}*) ;; *) exit 64 ;; esac
for link in "$aside"/pg_tblspc/* "$aside/pg_wal"; do
  [ -L "$link" ] || continue
  at=$(readlink -f -- "$link")
  case $at in *${asideMark}*) rm -rf -- "$at" || exit 74 ;; esac
done
rm -rf -- "$aside"
`

/** Old directories that are to be removed, one a line: nothing but their removal is left to be done of an earlier rejoin. */
const supersededFile = 'superseded'

async function readSuperseded(ctx: StepContext): Promise<readonly string[]> {
  const { home } = await look(ctx)
  const path = `${stateDirectoryOf(home, ctx.node.settings)}/${supersededFile}`
  return ((await readTextFile(ctx.node, path)) ?? '').split('\n').filter((line) => line !== '')
}

/**
 * The old data directory goes once its successor streams, whoever built that, if all it held is elsewhere; else it stays and is
 * told of. Before the removal begins, the mark says so: when that is interrupted, the next run finds a standby, and not a
 * clone to go on with.
 */
export function removeDirectoryAside(
  node: NodeName,
  { isReplaced = false }: { readonly isReplaced?: boolean } = {},
): Step {
  return {
    title: 'remove the old data directory, unless it holds what is nowhere else',
    node,
    // What streams is the only one from here on: a failure of what comes later must not take that back.
    pointOfNoReturn: true,
    check: async (ctx) => {
      const { rejoin } = await look(ctx)
      if (rejoin !== null && rejoin.phase !== 'whole')
        return pending(rejoin.aside === null ? 'its mark is there' : `it is in ${rejoin.aside}`)
      const left = await readSuperseded(ctx)
      if (left.length > 0) return pending(`left over: ${left.join(', ')}`)
      return ctx.isDryRun && isReplaced ? unknownUntil('its successor streams') : satisfied('there is none')
    },
    apply: async (ctx) => {
      const { rejoin, dataDirectoryInode } = await lookAnew(ctx)
      if (rejoin !== null && rejoin.phase !== 'whole') {
        await makeWhole(ctx, rejoin, dataDirectoryInode)
      }
      await removeSuperseded(ctx)
    },
  }
}

/**
 * The last step of a rejoin. Until here the mark says how the node came back and what was discarded for that, so that the run which
 * gets to the end tells it, whatever became of those before it.
 */
export function endRejoin(
  node: NodeName,
  { isReplaced = false }: { readonly isReplaced?: boolean } = {},
): Step {
  return {
    title: 'remove the mark of the rejoin',
    node,
    cannotBeUndone: true,
    check: async (ctx) => {
      const { rejoin } = await look(ctx)
      if (rejoin !== null) return pending(`it was begun at ${rejoin.at}`)
      return ctx.isDryRun && isReplaced ? unknownUntil('the rejoin is done') : satisfied('there is none')
    },
    apply: removeMark,
  }
}

/** For whoever else has built the node, or deleted its data: others need not wait for it. */
export function endRejoinElsewhere(node: NodeName): Step {
  const step = removeDirectoryAside(node)
  return cannotBeUndone({
    title: step.title,
    node,
    check: async (ctx) => {
      const { rejoin } = await look(ctx)
      return rejoin?.phase === 'whole' ? pending('its mark is there') : await step.check(ctx)
    },
    apply: async (ctx) => {
      const { rejoin } = await lookAnew(ctx)
      if (rejoin !== null) await endUntold(ctx, rejoin)
      await removeSuperseded(ctx)
    },
  })
}

async function removeSuperseded(ctx: StepContext): Promise<void> {
  for (const path of await readSuperseded(ctx)) {
    const script = stateScript(ctx.node, `remove ${path}`, deleteScript, [path])
    await ctx.node.output(script, { timeoutMs: 3_600_000 })
  }
  await removeStateFile(ctx, ctx.node.name, supersededFile)
}

/**
 * A mark that a rejoin of an earlier life left ({@link rejoinUnderWay}) is not taken over by this one: where its old directory lies
 * is written down for removal, or told. One that was not moved yet is what this one finds in its place.
 * `isUntold`: what it had discarded is told with what this one does, so its mark stays until that takes its place.
 */
export function endEarlierRejoin(
  node: NodeName,
  { isUntold = false }: { readonly isUntold?: boolean } = {},
): Step {
  return {
    title: 'end what an earlier rejoin left',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const { rejoin } = facts
      if (rejoin === null) return satisfied('there is nothing')
      if (rejoinUnderWay(facts) !== null) return satisfied('it goes on')
      if (isUntold && rejoin.phase === 'whole') return satisfied('it is told with this one')
      const isMoved = rejoin.aside === null || (await isThere(ctx, rejoin.aside))
      return isMoved ? pending(`it was begun at ${rejoin.at}`) : satisfied('its directory was not moved')
    },
    apply: async (ctx) => {
      const { rejoin, dataDirectoryInode } = await look(ctx)
      if (rejoin === null) return
      if (isUntold) await makeWhole(ctx, rejoin, dataDirectoryInode)
      else await endUntold(ctx, rejoin)
    },
  }
}

async function makeWhole(ctx: StepContext, rejoin: RejoinMark, inode: string): Promise<void> {
  await settleAside(ctx, rejoin)
  await writeRejoinMark(ctx, ctx.node.name, { ...rejoin, phase: 'whole', aside: null, inode })
}

/** Nobody goes on with it: where what it saved lies is told by whoever ends it. */
async function endUntold(ctx: StepContext, rejoin: RejoinMark): Promise<void> {
  await settleAside(ctx, rejoin)
  const saved = await readSalvage(ctx.node)
  if (saved !== null && saved.forkLsn === rejoin.forkLsn && saved.transactions > 0) {
    ctx.warn(savedBefore(saved))
  }
  await removeMark(ctx)
}

async function removeMark(ctx: StepContext): Promise<void> {
  await removeKeptFiles(ctx)
  await removeStateFile(ctx, ctx.node.name, 'rejoin.json')
}

async function settleAside(ctx: StepContext, { method, aside, isRedundant }: RejoinMark): Promise<void> {
  const { name } = ctx.node
  if (method === 'reclone' && aside !== null) {
    if (isRedundant) {
      const list = new Set([...(await readSuperseded(ctx)), aside])
      await writeStateFile(ctx, name, supersededFile, [...list].map((path) => `${path}\n`).join(''))
    } else if (await isThere(ctx, aside)) {
      ctx.warn(keptAside(name, aside))
    }
  }
}

async function isThere(ctx: StepContext, path: string): Promise<boolean> {
  const command = shellScript(`look for ${path}`, '[ -d "$1" ] && echo there; :', [path])
  return (await ctx.node.output(command)).trim() === 'there'
}

function keptAside(node: NodeName, aside: string): ReplctlError {
  return new ReplctlError('data-directory-kept', `the old data directory of ${node} was kept`, {
    detail: `It lies in ${aside} and may hold transactions that were not written out.`,
    hint: 'Remove it there once you do not need it any more.',
    node,
  })
}

function savedBefore({ node, dir, transactions, rows, createdAt }: SalvageRecord): ReplctlError {
  return new ReplctlError(
    'salvage-untold',
    `a rejoin of ${node} did not come to tell what it had discarded`,
    {
      detail: `${transactions} transaction(s) that only ${node} had, ${rows} row(s), were saved at ${createdAt}; they lie in ${dir} there.`,
      hint: 'Review salvage.sql there before you apply it.',
      node,
    },
  )
}
