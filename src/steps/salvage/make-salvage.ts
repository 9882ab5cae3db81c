import { setFlagsFromString } from 'node:v8'
import type { NodeFacts } from '../../cluster/facts.ts'
import type { NodeName } from '../../cluster/names.ts'
import { type SalvageRecord, salvageId } from '../../cluster/salvage.ts'
import { stateDirectoryOf } from '../../cluster/state-directory.ts'
import type { StepContext } from '../../engine/step.ts'
import { asReplctlError, ReplctlError } from '../../errors.ts'
import {
  awaitReplayOfAll,
  type IsolatedPlace,
  openIsolated,
  startIsolated,
  stopIsolated,
} from '../../node/isolated-instance.ts'
import { SalvageFolder } from '../../node/salvage-folder.ts'
import { removeWalView, type WalView } from '../../node/wal-reader.ts'
import { compareLsn, parseLsn } from '../../postgres/lsn.ts'
import { historyFileName, segmentNumber } from '../../postgres/wal-file.ts'
import { binDirectoryOf, majorOf } from '../look.ts'
import { type FoundDivergence, findDivergedWal, viewFrom } from './divergence.ts'
import { type DivergedEnd, findEnd, readChanges } from './read-lost.ts'
import { salvageHeader } from './salvage-header.ts'
import { nothingSaved, type SalvagePart } from './save-database.ts'
import { saveNode } from './save-node.ts'

/** Where and how a stopped node's instance is started to be read. */
export function isolatedPlaceOf(facts: NodeFacts, timeline: FoundDivergence['timeline']): IsolatedPlace {
  return {
    major: majorOf(facts),
    timeline,
    binDirectory: binDirectoryOf(facts),
    home: facts.home,
    configDirectory: facts.configDirectory,
    control: facts.control,
  }
}

/**
 * Makes the salvage of a stopped node: the WAL from the fork on first, then what its transactions did. It is made under
 * another name and renamed when it is whole. `before`: an earlier try, which is not replaced by one that saved no more: its
 * salvage.sql may have been reviewed or applied since, and what it has of rows as they were may be gone by now.
 */
export async function makeSalvage(
  ctx: StepContext,
  facts: NodeFacts,
  primary: NodeName,
  divergence: FoundDivergence,
  before: SalvageRecord | null = null,
): Promise<SalvageRecord> {
  const { node } = ctx
  // Rows pass through here in large numbers: the heap is collected sooner instead of growing (130 MB became 108).
  setFlagsFromString('--optimize-for-size')
  const place = isolatedPlaceOf(facts, divergence.timeline)
  const wal = await findDivergedWal(ctx, divergence)
  let folder: SalvageFolder | null = null
  try {
    const found = await findEnd(ctx, place.binDirectory, divergence, wal)
    const id = salvageId(divergence, found.end)
    folder = new SalvageFolder(node, id)
    const segments = segmentsToKeep(
      viewFrom(wal, wal.forkSegment),
      wal.forkSegment,
      found,
      wal.segmentSizeBytes,
    )
    const history = divergence.timeline === 1 ? [] : [historyFileName(divergence.timeline)]
    ctx.progress({ message: `keeping ${segments.length} WAL segments` })
    await folder.begin()
    await requireRoom(folder, node.name, segments.length, wal.segmentSizeBytes)
    await folder.keepWal([...segments, ...history])
    const blank: SalvageRecord = {
      version: 1,
      node: node.name,
      systemIdentifier: divergence.systemIdentifier,
      timeline: divergence.timeline,
      forkLsn: divergence.fork,
      endLsn: found.end,
      createdAt: new Date().toISOString(),
      dir: `${stateDirectoryOf(facts.home, node.settings)}/salvage/${id}`,
      isComplete: found.missing === null,
      transactions: 0,
      ...nothingSaved,
      unsalvaged: found.missing === null ? [] : [found.missing],
      conflicts: 0,
      aborted: 0,
      prepared: [],
      walSegments: segments,
    }
    const record =
      found.lost === null ? blank : await fill(ctx, { blank, found, folder, place, primary, divergence, wal })
    if (before !== null && before.dir === record.dir && !hasMore(record, before)) {
      await folder.drop()
      return before
    }
    await folder.write('salvage.json', `${JSON.stringify(record, null, 2)}\n`)
    await folder.finish()
    return record
  } catch (thrown) {
    // Half a copy of the WAL must not keep a disk full on which others have to write.
    if (asReplctlError(thrown).code === 'disk-full') await folder?.drop().catch(() => undefined)
    throw thrown
  } finally {
    await removeWalView(node)
  }
}

/** Whether another try was worth it. */
function hasMore(record: SalvageRecord, before: SalvageRecord): boolean {
  if (record.isComplete !== before.isComplete) return record.isComplete
  return record.rows > before.rows
}

/** Looked at before anything is copied: the home of the OS user may be on a small file system. */
export async function requireRoom(
  folder: SalvageFolder,
  node: NodeName,
  segments: number,
  segmentSizeBytes: number,
): Promise<void> {
  const free = await folder.freeBytes()
  // One more, for the rows.
  const needed = (segments + 1) * segmentSizeBytes
  if (free === null || free >= needed) return
  throw new ReplctlError('disk-full', `${node} has no room for the WAL that only it has`, {
    detail: `${segments} segments are to be kept below the home of the OS user; that takes ${needed} bytes, and ${free} are free there.`,
    hint: 'Free some space on that file system, then run the command again.',
    node,
  })
}

interface Task {
  readonly blank: SalvageRecord
  readonly found: DivergedEnd
  readonly folder: SalvageFolder
  readonly place: IsolatedPlace
  readonly primary: NodeName
  readonly divergence: FoundDivergence
  readonly wal: Awaited<ReturnType<typeof findDivergedWal>>
}

/** Reads what the lost transactions changed, and writes it out. */
async function fill(ctx: StepContext, task: Task): Promise<SalvageRecord> {
  const { blank, found, folder, place, primary, wal } = task
  if (found.lost === null) return blank
  const { lost, gaps } = found.lost
  const listed = await folder.writer('transactions.jsonl')
  let transactions = 0
  ctx.progress({ message: `reading what ${lost.committed.size} transactions changed` })
  const { changes, gaps: later } = await readChanges(ctx, place.binDirectory, wal, found.lost, (one) => {
    transactions += 1
    // What goes wrong with the file is told when it is closed.
    listed.write(`${JSON.stringify(one)}\n`).catch(() => undefined)
  })
  await listed.close()
  const rows = await folder.writer('rows.jsonl')
  const sql = await folder.writer('statements')
  const saved = await readIsolated(ctx, place, found, () =>
    saveNode(ctx, { place, primary, folder, lost, changes, rows, sql }),
  )
  await rows.close()
  await sql.close()
  const unsalvaged = [...gaps, ...later, ...saved.unsalvaged]
  const record: SalvageRecord = {
    ...blank,
    ...saved,
    transactions,
    isComplete: unsalvaged.length === 0,
    conflicts: saved.tables.reduce((sum, table) => sum + table.conflicts, 0),
    aborted: lost.aborted,
    prepared: lost.preparedNames,
    unsalvaged,
  }
  await folder.write('header', salvageHeader(record))
  await folder.run(
    'put salvage.sql together',
    'cd "$dir" && cat header statements > salvage.sql && rm header statements',
    [],
  )
  return record
}

/**
 * Starts the instance in isolation, has it read, and stops it, whatever happens. One that does not start, or does not come to
 * the end of its WAL, is a finding.
 */
async function readIsolated(
  ctx: StepContext,
  place: IsolatedPlace,
  found: DivergedEnd,
  read: () => Promise<SalvagePart>,
): Promise<SalvagePart> {
  const { node } = ctx
  ctx.progress({ message: 'starting the old instance in isolation' })
  try {
    await startIsolated(node, place, { signal: ctx.signal })
    // It takes reads long before it has replayed what a standby had put off.
    await awaitReplayOfAll(node, place, {
      signal: ctx.signal,
      progress: (lsn) => ctx.progress({ message: `the old instance has replayed up to ${lsn}` }),
    })
  } catch (thrown) {
    const error = asReplctlError(thrown)
    await stopIsolated(node, place)
    if (error.code !== 'start-failed') throw error
    return { ...nothingSaved, unsalvaged: [`all rows: ${error.message}. ${error.detail ?? ''}`] }
  }
  try {
    const short = await replayGap(ctx, place, found)
    const part = await read()
    return { ...part, unsalvaged: [...short, ...part.unsalvaged] }
  } finally {
    await stopIsolated(node, place)
  }
}

/** Whether the server and pg_waldump found the same end: else one of them stopped at damage. */
async function replayGap(
  ctx: StepContext,
  place: IsolatedPlace,
  { end, next }: DivergedEnd,
): Promise<readonly string[]> {
  const sql = await openIsolated(ctx.node, place, ctx.node.settings.postgres.database)
  try {
    const replayed = parseLsn((await sql.value('SELECT pg_last_wal_replay_lsn()')) ?? '0/0')
    if (end !== null && compareLsn(replayed, end) <= 0) {
      return [
        `rows of the transactions after ${replayed}: the server replayed no further, although its WAL reaches ${end}`,
      ]
    }
    if (next !== null && compareLsn(replayed, next) > 0) {
      return [
        `transactions after ${end}: pg_waldump read no further, although the server replayed to ${replayed}`,
      ]
    }
    return []
  } finally {
    await sql.close()
  }
}

/** The files that hold the WAL from the fork to its end, and the one after where the last record reaches over. */
function segmentsToKeep(
  view: WalView,
  first: bigint,
  { end, next, beyond }: DivergedEnd,
  segmentSizeBytes: number,
): readonly string[] {
  if (end === null) return []
  if (beyond !== null) return [...view.values()].slice(0, Number(beyond - first) + 1)
  const last = segmentNumber(next ?? end, segmentSizeBytes)
  return [...view.values()].slice(0, Number(last - first) + (next === null ? 2 : 1))
}
