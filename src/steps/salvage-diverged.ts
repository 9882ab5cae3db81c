import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { rejoinUnderWay } from '../cluster/rejoin-under-way.ts'
import { isOfDivergence, parseSalvageRecord, type SalvageRecord } from '../cluster/salvage.ts'
import {
  type Finding,
  pending,
  refused,
  type Step,
  type StepContext,
  satisfied,
  unknownUntil,
} from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { isIsolated, stopIsolated } from '../node/isolated-instance.ts'
import type { Node } from '../node/node.ts'
import { readSalvageRecords } from '../node/salvage-folder.ts'
import { makeWalView, readWal, removeWalView } from '../node/wal-reader.ts'
import { compareLsn, type Lsn, type TimelineId } from '../postgres/lsn.ts'
import { segmentNumber } from '../postgres/wal-file.ts'
import type { ClusterInput } from './cluster-input.ts'
import { binDirectoryOf, look } from './look.ts'
import { type FoundDivergence, findDivergedWal, findDivergence, viewFrom } from './salvage/divergence.ts'
import { isolatedPlaceOf, makeSalvage } from './salvage/make-salvage.ts'

/**
 * Writes out what only this node has, before anything of it is discarded: the rows that its transactions inserted, changed
 * and deleted after its WAL left the primary's line, as `rows.jsonl` and as `salvage.sql`, with the WAL itself. The node
 * is stopped; it is read in isolation, as a standby of nobody, so that it accepts no write at any moment, and nothing that
 * a later rewind needs is changed. Killed at any point and run again, it gets to the same end.
 * What could not be saved is no error of this step: `salvage.json` says so ({@link readSalvage}), and its reader decides.
 */
export function salvageDiverged(
  node: NodeName,
  primary: NodeName,
  _input: ClusterInput,
  allowDataLoss = false,
): Step {
  const step: Step & Required<Pick<Step, 'apply' | 'verify'>> = {
    title: `save what only ${node} has`,
    node,
    check: async (ctx) => await checkSalvage(ctx, primary),
    apply: async (ctx) => {
      const facts = await look(ctx)
      await stopIsolated(ctx.node, isolatedPlaceOf(facts, 1 as TimelineId))
      const divergence = await findDivergence(ctx, facts, primary)
      if (divergence === null) return
      const before = await findSalvage(ctx, divergence)
      const record = await makeSalvage(ctx, facts, primary, divergence, before)
      if (!record.isComplete) ctx.warn(notAllSaved(record, { isDiscarded: allowDataLoss }))
    },
    verify: async (ctx) => {
      const divergence = await findDivergence(ctx, await look(ctx), primary)
      if (divergence !== null && (await findSalvage(ctx, divergence)) === null) throw notThere(node)
    },
  }
  if (!allowDataLoss) return step
  return {
    ...step,
    check: async (ctx) =>
      await despite(
        () => step.check(ctx),
        primary,
        ({ message }) => pending(message),
      ),
    apply: async (ctx) =>
      await despite(
        () => step.apply(ctx),
        primary,
        (error) => ctx.warn(nothingSaved(node, error)),
      ),
    verify: async (ctx) =>
      await despite(
        () => step.verify(ctx),
        primary,
        () => undefined,
      ),
  }
}

/** What says that the old instance cannot be read. All else (a lost link, another identity, a server that runs) is no loss to be allowed for. */
const unreadableCodes: ReadonlySet<string> = new Set([
  ...['binaries-missing', 'control-data-unreadable', 'disk-full', 'not-answering', 'remote-command-failed'],
  ...['salvage-incomplete', 'sql-failed', 'start-failed', 'timeout'],
])

/** By the operator's word a salvage that fails is told, and does not stand in the way. */
async function despite<T>(
  work: () => Promise<T>,
  primary: NodeName,
  otherwise: (error: ReplctlError) => T,
): Promise<T> {
  try {
    return await work()
  } catch (thrown) {
    const error = asReplctlError(thrown)
    if (!unreadableCodes.has(error.code) || error.node === primary) throw error
    return otherwise(error)
  }
}

/**
 * Refuses to go on where something could not be saved, unless the operator allowed for it. To stand right after
 * {@link salvageDiverged}, before anything is discarded.
 */
export function requireSalvaged(node: NodeName, primary: NodeName, allowDataLoss: boolean): Step {
  return {
    title: `require that nothing of ${node} is lost unseen`,
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (rejoinUnderWay(facts) !== null || facts.dataDirectoryState !== 'instance')
        return satisfied('it was before')
      if (facts.postmaster?.isAlive === true) return unknownUntil(`PostgreSQL on ${node} is stopped`)
      const judge = async () => await judgeSalvage(ctx, facts, primary, allowDataLoss)
      return allowDataLoss
        ? await despite(judge, primary, ({ message }) => satisfied(`allowed for: ${message}`))
        : await judge()
    },
  }
}

async function judgeSalvage(
  ctx: StepContext,
  facts: NodeFacts,
  primary: NodeName,
  allowDataLoss: boolean,
): Promise<Finding> {
  const divergence = await findDivergence(ctx, facts, primary)
  if (divergence === null) return satisfied(`it has no WAL that ${primary} lacks`)
  const done = await findSalvage(ctx, divergence)
  if (done === null && allowDataLoss && !ctx.isDryRun) return satisfied('allowed for: nothing of it is saved')
  if (done === null) return unknownUntil(`what only ${facts.name} has is saved`)
  if (done.isComplete) return satisfied(`${done.rows} rows are saved in ${done.dir}`)
  if (allowDataLoss) return satisfied(`allowed for: ${done.unsalvaged.join('; ')}`)
  return refused(incomplete(done))
}

/** The salvage came to no end at all, and the operator wants to go on. */
function nothingSaved(node: NodeName, error: ReplctlError): ReplctlError {
  return new ReplctlError(
    'salvage-incomplete',
    `what only ${node} has could not be saved: ${error.message}`,
    {
      detail: error.detail,
      hint: 'It is gone on without, as --allow-data-loss says. Where the node is cloned anew its old data directory is kept.',
      node,
    },
  )
}

function notThere(node: NodeName): ReplctlError {
  return new ReplctlError('salvage-incomplete', `what only ${node} has is not written out`, {
    detail: 'No salvage of this divergence is found where it was written.',
    hint: 'Nothing was discarded. Run the command again.',
    node,
  })
}

export function notAllSaved(
  { node, dir, unsalvaged }: SalvageRecord,
  { isDiscarded = false }: { readonly isDiscarded?: boolean } = {},
): ReplctlError {
  const next = isDiscarded
    ? 'The rest is gone with this, as --allow-data-loss says; where the node is cloned anew its old data directory is kept.'
    : 'Mend what is named; another try gets the rest.'
  return new ReplctlError('salvage-incomplete', `not all of what only ${node} has could be saved`, {
    detail: `Not saved: ${unsalvaged.join('; ')}.`,
    hint: `What was saved, and the WAL, is in ${dir} on ${node}. ${next}`,
    node,
  })
}

function incomplete({ node, dir, unsalvaged, transactions }: SalvageRecord): ReplctlError {
  return new ReplctlError(
    'salvage-incomplete',
    `refused to discard what only ${node} has: not all of it could be saved`,
    {
      detail: `Not saved, of ${transactions} transactions: ${unsalvaged.join('; ')}.`,
      hint: `What was saved, and the WAL, is in ${dir} on ${node}. To go on all the same: --allow-data-loss`,
      node,
    },
  )
}

/** The newest salvage of a node: of the divergence that it has, or of the last one that it had. */
export async function readSalvage(node: Node): Promise<SalvageRecord | null> {
  return newest(await allSalvages(node))
}

async function checkSalvage(ctx: StepContext, primary: NodeName): Promise<Finding> {
  const facts = await look(ctx)
  const { name } = ctx.node
  if (facts.dataDirectoryState !== 'instance') return satisfied('it has no data')
  if (rejoinUnderWay(facts) !== null) return satisfied('a rewind has begun: what it had was saved before')
  if (facts.postmaster?.isAlive === true) {
    return isIsolated(ctx.node, facts)
      ? pending('an earlier run stopped while it was read')
      : unknownUntil(`PostgreSQL on ${name} is stopped`)
  }
  const divergence = await findDivergence(ctx, facts, primary)
  if (divergence === null) return satisfied(`it has no WAL that ${primary} lacks`)
  const done = await findSalvage(ctx, divergence)
  if (done !== null && (await isStillTheEnd(ctx, facts, divergence, done))) {
    return done.isComplete
      ? satisfied(`${done.rows} rows of ${done.transactions} transactions lie in ${done.dir}`)
      : pending(`not all could be saved before: ${done.unsalvaged.join('; ')}`)
  }
  return pending(
    `its WAL leaves that of ${primary} at ${divergence.fork}, on timeline ${divergence.timeline}`,
  )
}

async function findSalvage(ctx: StepContext, divergence: FoundDivergence): Promise<SalvageRecord | null> {
  return newest((await allSalvages(ctx.node)).filter((record) => isOfDivergence(record, divergence)))
}

async function allSalvages(node: Node): Promise<readonly SalvageRecord[]> {
  const records = (await readSalvageRecords(node)).map(parseSalvageRecord)
  return records.filter((record) => record !== null)
}

const newest = (records: readonly SalvageRecord[]): SalvageRecord | null =>
  records.toSorted((a, b) => a.createdAt.localeCompare(b.createdAt)).at(-1) ?? null

/** Whether the node wrote nothing more after what was saved. */
async function isStillTheEnd(
  ctx: StepContext,
  facts: NodeFacts,
  divergence: FoundDivergence,
  { endLsn }: SalvageRecord,
): Promise<boolean> {
  const wal = await findDivergedWal(ctx, divergence)
  const from = endLsn ?? divergence.fork
  const view = viewFrom(wal, segmentNumber(from, wal.segmentSizeBytes))
  if (view.size === 0) return endLsn === null
  await makeWalView(ctx.node, view, 'wal-check')
  const found: Lsn[] = []
  try {
    await readWal(
      ctx.node,
      { name: 'wal-check', binDirectory: binDirectoryOf(facts), view, start: from, limit: 2 },
      ({ lsn }) => {
        if (compareLsn(lsn, from) >= 0) found.push(lsn)
      },
    )
  } finally {
    await removeWalView(ctx.node, 'wal-check')
  }
  return found.every((lsn) => lsn === endLsn)
}
