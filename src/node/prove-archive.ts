import { archivingFault } from '../cluster/archiving-fault.ts'
import type { NodeFacts } from '../cluster/facts.ts'
import type { Inventory } from '../cluster/inventory.ts'
import { type Problem, problemOf } from '../cluster/problem.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { archiveStatus } from '../postgres/archive.ts'
import type { Node } from './node.ts'
import { stateScript } from './node.ts'
import type { SqlSession } from './sql-session.ts'
import { switchWal } from './switch-wal.ts'

export interface ArchiveProof {
  readonly ok: boolean
  /** Null where it came to none. */
  readonly segment: string | null
  readonly latency_ms: number | null
}

export interface ArchiveToProve {
  readonly node: Node
  readonly sql: SqlSession
  readonly inventory: Inventory
  readonly facts: NodeFacts
  readonly timeoutMs: number
  readonly signal: AbortSignal
  readonly problems: Problem[]
}

/**
 * Proves the archive: forces a segment switch, waits until the server says that the segment is archived, and reads it
 * back from the archive host byte for byte, by the same script that a standby would use.
 */
export async function proveArchive(archive: ArchiveToProve): Promise<ArchiveProof | null> {
  const { node, sql, inventory, facts, timeoutMs, problems, signal } = archive
  if (inventory.archive === undefined) return null
  const fault = archivingFault(inventory, facts)
  // Nothing would come, or into another archive.
  if (fault?.[1] === 'error') {
    const problem = problemOf(...fault)
    if (!problems.some(({ message }) => message === problem.message)) problems.push(problem)
    return { ok: false, segment: null, latency_ms: null }
  }
  const startedAt = performance.now()
  const segment = await switchWal(sql)
  const failed = (detail: string): ArchiveProof => {
    problems.push(
      problemOf(
        new ReplctlError('archive-failing', `segment ${segment} did not reach the archive`, {
          detail,
          hint: `The reason stands in the log of ${node.name}. PostgreSQL keeps the WAL and tries again.`,
          node: node.name,
        }),
      ),
    )
    return { ok: false, segment, latency_ms: null }
  }
  const until = { deadline: startedAt + timeoutMs, signal }
  if (inventory.archive.mode === 'push') {
    const failure = await awaitArchived(sql, segment, until, facts.instance?.archiver?.failedCount ?? 0)
    if (failure !== null) return failed(failure)
  }
  // In a folder of its own: archive-fetch writes beside its target, and others may verify at the same time.
  const script = `
set -e
find "$state/" -maxdepth 1 -name 'verify[.-]*' -mmin +60 -exec rm -rf {} + 2>/dev/null || :
folder=$(mktemp -d "$state/verify.XXXXXX")
trap 'rm -rf "$folder"' EXIT
copy="$folder/$2"
"$state/archive-fetch" "$2" "$copy"
if [ -f "$3/pg_wal/$2" ]; then cmp "$copy" "$3/pg_wal/$2"; else [ -s "$copy" ]; fi
`
  const { dataDir } = node.settings.postgres
  const fetch = () =>
    node.run(stateScript(node, `fetch ${segment}`, script, [segment, dataDir]), {
      timeoutMs: Math.max(Math.min(10_000, timeoutMs), until.deadline - performance.now()),
      signal,
    })
  try {
    let fetched = await fetch()
    // What is streamed is there a moment after the switch.
    while (
      fetched.status === archiveStatus.missing &&
      performance.now() < until.deadline &&
      !signal.aborted
    ) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      fetched = await fetch()
    }
    if (fetched.status !== 0) return failed(`It could not be read back: ${fetched.stderr.trim()}`)
  } catch (thrown) {
    const { message, detail = '' } = asReplctlError(thrown)
    return failed(`It could not be read back: ${message}. ${detail}`)
  }
  return { ok: true, segment, latency_ms: Math.round(performance.now() - startedAt) }
}

/** Null once the server says that it archived the segment, else why not. */
async function awaitArchived(
  sql: SqlSession,
  segment: string,
  { deadline, signal }: { readonly deadline: number; readonly signal: AbortSignal },
  failuresBefore: number,
): Promise<string | null> {
  const startedAt = performance.now()
  for (;;) {
    const state = await sql.json<{ archived: boolean; failed: string | null; failures: number }>(
      `SELECT json_build_object('archived', last_archived_wal >= '${segment}', 'failed', last_failed_wal,
         'failures', failed_count) FROM pg_stat_archiver`,
    )
    if (state.archived) return null
    const hasFailedNow = state.failures > failuresBefore
    if (
      signal.aborted ||
      performance.now() > deadline ||
      (hasFailedNow && performance.now() - startedAt > 5_000)
    ) {
      return `The server's last failure was for ${state.failed ?? 'nothing'}; ${state.failures} failures so far.`
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
