import { ReplctlError } from '../errors.ts'
import { archiveStatus } from '../postgres/archive.ts'
import { archivingFault } from './archiving-fault.ts'
import type { Archiver, NodeFacts } from './facts.ts'
import type { Inventory } from './inventory.ts'
import type { Problem } from './problem.ts'
import { archiveStreamNames } from './replication-names.ts'

/** How long a finished segment may wait before it is worth a word; a busy server fills some in seconds. */
const lateSeconds = 600

type Finding = readonly [ReplctlError, Problem['severity']]

/**
 * What is wrong with archiving on the node that leads, with the words of archive-push where replctl's is used. Nothing is
 * lost meanwhile: PostgreSQL keeps what is not archived.
 */
export function judgeArchiving(inventory: Inventory, facts: NodeFacts): readonly Finding[] {
  if (facts.instance === null) return []
  const { archive, cluster } = inventory
  const pile = judgePile(inventory, facts)
  if (pile !== null) return [pile]
  const faults = standingFaults(inventory, facts)
  if (archive?.mode === 'stream') return [...faults, ...judgeStream(cluster, facts)]
  const isOff = facts.instance.settings.archive_mode?.value === 'off'
  return archive === undefined || isOff ? faults : [...faults, ...judgePush(facts)]
}

/** What is wrong for as long as nobody acts, whichever WAL is written, on a node that leads or may come to. */
export function standingFaults(inventory: Inventory, facts: NodeFacts): readonly Finding[] {
  const found = judgePile(inventory, facts) ?? archivingFault(inventory, facts)
  return found === null ? [] : [found]
}

function judgePush(facts: NodeFacts): readonly Finding[] {
  const archiver = facts.instance?.archiver ?? null
  if (archiver === null) return []
  const waiting = waitingText(archiver)
  if (!archiver.isFailing) {
    if ((archiver.oldestReadySeconds ?? 0) < lateSeconds) return []
    const isStuck = archiver.lastArchivedSeconds === null || archiver.lastArchivedSeconds >= lateSeconds
    const error = new ReplctlError(
      'archive-failing',
      isStuck ? `nothing is archived any more on ${facts.name}` : `archiving is behind on ${facts.name}`,
      {
        detail: isStuck ? `${waiting} The attempt neither succeeds nor fails.` : waiting,
        hint: `Look at "replctl archive status"${
          isStuck ? `, and on ${facts.name} whether archive-push hangs there` : ''
        }. PostgreSQL keeps the WAL meanwhile: watch its disk.`,
        node: facts.name,
      },
    )
    return [[error, isStuck ? 'error' : 'warning']]
  }
  const said = facts.archiveError ?? null
  const isConflict = said?.status === archiveStatus.conflict
  const count = `The last failure was for ${archiver.lastFailedWal}; ${archiver.failedCount} failures so far.${
    waiting === '' ? '' : ` ${waiting}`
  }`
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

function waitingText({ readyCount, oldestReadySeconds }: Archiver): string {
  if (readyCount === 0) return ''
  const files = readyCount === 1 ? 'finished WAL file waits' : 'finished WAL files wait'
  const since = oldestReadySeconds === null ? '' : `, the first since ${Math.round(oldestReadySeconds)} s`
  return `${readyCount} ${files}${since}.`
}

/**
 * archive_mode goes off at a restart only: where the command was taken away before, every segment is kept for ever. So it is
 * after `archive` was taken out of the inventory, or changed to `mode: stream`.
 */
function judgePile({ archive }: Inventory, { instance, name }: NodeFacts): Finding | null {
  const [mode, ...commands] = ['archive_mode', 'archive_command', 'archive_library'].map(
    (one) => instance?.settings[one]?.value,
  )
  const isPiling = mode !== undefined && mode !== 'off' && commands.every((one) => (one ?? '') === '')
  if (archive?.mode === 'push' || !isPiling) return null
  const count = instance?.archiver?.readyCount ?? 0
  const error = new ReplctlError(
    'archive-failing',
    count === 0 ? `WAL will pile up on ${name}` : `WAL piles up on ${name}`,
    {
      detail: `archive_mode is still on there, without a command: ${
        count === 0 ? 'each finished WAL file will wait' : `${count} finished WAL files wait`
      } for nobody, until the disk is full.`,
      hint:
        archive === undefined
          ? `The inventory has no archive: restart PostgreSQL on ${name}, a primary after a switchover. Or put the archive back, then: replctl init primary ${name}`
          : `WAL is streamed to the archive now. What waits is archived by "replctl init primary ${name}"; then restart PostgreSQL on ${name}, a primary after a switchover.`,
      node: name,
    },
  )
  return [error, count === 0 ? 'warning' : 'error']
}

/** pg_receivewal's connection to a node that leads; undefined: it has none. */
export function archiveConnection(cluster: string, facts: NodeFacts) {
  const { application } = archiveStreamNames(cluster)
  return facts.instance?.replication.find(
    (one) => one.applicationName === application && one.state !== 'startup',
  )
}

function judgeStream(cluster: string, facts: NodeFacts): readonly Finding[] {
  if (archiveConnection(cluster, facts) !== undefined) return []
  const { slot } = archiveStreamNames(cluster)
  const keeps = facts.instance?.slots.some((one) => one.name === slot && one.restartLsn !== null)
  const error = new ReplctlError('archive-failing', `no WAL is streamed from ${facts.name} to the archive`, {
    detail: keeps
      ? `Slot "${slot}" keeps the WAL meanwhile.`
      : `There is no slot "${slot}" that keeps the WAL: it may be gone before the archive has it.`,
    hint: `It starts again by itself within seconds where it runs; else "replctl init primary ${facts.name}" starts it. Its log is stream.log in replctl's state directory on the archive host.`,
    node: facts.name,
  })
  return [[error, 'error']]
}
