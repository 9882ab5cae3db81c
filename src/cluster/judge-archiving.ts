import { ReplctlError } from '../errors.ts'
import { archiveStatus } from '../postgres/archive.ts'
import type { NodeFacts } from './facts.ts'
import type { Inventory } from './inventory.ts'
import type { Problem } from './problem.ts'
import { archiveStreamNames } from './replication-names.ts'

/** How long a finished segment may wait before it is worth a word; a busy server fills some in seconds. */
const lateSeconds = 600

/**
 * What is wrong with archiving on the node that leads, with the words of archive-push where replctl's is used. Nothing is
 * lost meanwhile: PostgreSQL keeps what is not archived.
 */
export function judgeArchiving(
  { archive, cluster }: Inventory,
  facts: NodeFacts,
): readonly (readonly [ReplctlError, Problem['severity']])[] {
  if (archive?.mode === 'stream') return judgeStream(cluster, facts)
  const archiver = facts.instance?.archiver
  if (archiver === null || archiver === undefined) return []
  const waiting =
    archiver.readyCount > 0
      ? ` ${archiver.readyCount} finished WAL ${archiver.readyCount === 1 ? 'file waits' : 'files wait'}${
          archiver.oldestReadySeconds === null
            ? ''
            : `, the first since ${Math.round(archiver.oldestReadySeconds)} s`
        }.`
      : ''
  if (!archiver.isFailing) {
    if ((archiver.oldestReadySeconds ?? 0) < lateSeconds) return []
    const error = new ReplctlError('archive-failing', `archiving is behind on ${facts.name}`, {
      detail: waiting.trim(),
      hint: 'Look at "replctl archive status". PostgreSQL keeps the WAL meanwhile: watch its disk.',
      node: facts.name,
    })
    return [[error, 'warning']]
  }
  const said = facts.archiveError ?? null
  const isConflict = said?.status === archiveStatus.conflict
  const count = `The last failure was for ${archiver.lastFailedWal}; ${archiver.failedCount} failures so far.${waiting}`
  const error = new ReplctlError(
    isConflict ? 'archive-conflict' : 'archive-failing',
    isConflict
      ? `archive conflict on ${facts.name}: the archive holds other content under the name ${said?.file}`
      : `archiving fails on ${facts.name}`,
    {
      detail: said === null ? count : `${count} ${said.message}`,
      hint: isConflict
        ? 'Two servers write this timeline (split brain, or promotion without a new timeline). Find out which of them is right before you remove anything: replctl status'
        : `${said === null ? "The reason stands in the server's log. " : ''}PostgreSQL keeps the WAL and tries again.`,
      node: facts.name,
    },
  )
  return [[error, 'error']]
}

/** pg_receivewal's connection to a node that leads; undefined: it has none. */
export function archiveConnection(cluster: string, facts: NodeFacts) {
  const { application } = archiveStreamNames(cluster)
  return facts.instance?.replication.find(
    (one) => one.applicationName === application && one.state !== 'startup',
  )
}

function judgeStream(cluster: string, facts: NodeFacts): readonly (readonly [ReplctlError, 'error'])[] {
  if (facts.instance === null) return []
  const waiting = facts.instance.archiver?.readyCount ?? 0
  if (waiting > 0) {
    // archive_mode was on before, and goes off at a restart only: without a command nothing is ever archived.
    const error = new ReplctlError('archive-failing', `WAL piles up on ${facts.name}`, {
      detail: `archive_mode is still on there, without a command: ${waiting} finished WAL files wait for nobody.`,
      hint: `WAL is streamed to the archive now: restart PostgreSQL on ${facts.name}, a primary after a switchover.`,
      node: facts.name,
    })
    return [[error, 'error']]
  }
  if (archiveConnection(cluster, facts) !== undefined) return []
  const { slot } = archiveStreamNames(cluster)
  const keeps = facts.instance.slots.some((one) => one.name === slot && one.restartLsn !== null)
  const error = new ReplctlError('archive-failing', `no WAL is streamed from ${facts.name} to the archive`, {
    detail: keeps
      ? `Slot "${slot}" keeps the WAL meanwhile.`
      : `There is no slot "${slot}" that keeps the WAL: it may be gone before the archive has it.`,
    hint: `It starts again by itself within seconds where it runs; else "replctl init primary ${facts.name}" starts it. Its log is stream.log in replctl's state directory on the archive host.`,
    node: facts.name,
  })
  return [[error, 'error']]
}
