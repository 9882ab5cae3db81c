import { wasStarted } from '../cluster/judge-restore.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import { stateScript } from '../node/node.ts'
import { archiveFiles, restoreCommandLine } from '../postgres/archive.ts'
import { commentOutSettings } from '../postgres/config-file.ts'
import { compareLsn, type Lsn } from '../postgres/lsn.ts'
import {
  findRaisedSetting,
  lastProgressOf,
  leastPostgresqlConf,
  type RecoveryWish,
  recoveryAutoConf,
  recoveryConfText,
} from '../postgres/recovery-files.ts'
import { describeTarget, isReasonOf } from '../postgres/recovery-target.ts'
import { parseTimelineHistory, type TimelineSwitch } from '../postgres/timeline-history.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { historyFileName, walFileStart } from '../postgres/wal-file.ts'
import { isRecoveringAlone, recoverySocketOf } from './end-restore.ts'
import { stopInstance } from './fence-instance.ts'
import { look, lookAnew, sqlOf } from './look.ts'
import { suitableBinaries } from './require-binaries.ts'
import { ownRecord, type Restore, writeRestoreRecord } from './restore-record.ts'

/** Signal files of whatever the copied instance was are no longer true. */
const clearSignalsScript = `
cd "$1" || exit 66
rm -f standby.signal recovery.signal recovery.conf replctl.standby.conf postmaster.pid postmaster.opts
mkdir -p pg_wal/archive_status
[ "$2" = "" ] || { : > "$2"; chmod 600 "$2"; }
`

/** A folder for the socket that only the OS user enters; a path that fits into a socket's name. */
const socketFolderScript = `
umask 077
mkdir "$1" 2>/dev/null || { [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]; } || exit 73
`

/**
 * Starts and does not wait: a recovery takes as long as it takes. Only now PostgreSQL may start there at all. pg_ctl hands `-o` to a
 * shell.
 * A tablespace that was created after the backup comes with its WAL, and in the folder where the original has its files: beside a node
 * these may be in use, and two instances would write to them. Where its link cannot be made, the recovery ends before that ("alone").
 * @see src/backend/commands/tablespace.c, create_tablespace_directories
 */
export const startRecoveryScript = `
chmod o-x "$3" || exit 70
[ "$4" != alone ] || chmod u-w "$3/pg_tblspc" || exit 70
: > "$state/recovery.log"
quoted=$(printf '%s' "$3" | sed "s/'/'\\\\\\\\''/g")
"$2/pg_ctl" start -D "$3" -l "$state/recovery.log" -W -s -o "-c data_directory='$quoted'" </dev/null
`

const logScript = `
[ -f "$state/recovery.log" ] || exit 0
grep -c 'restored log file' "$state/recovery.log"
grep 'is a lower setting than on' "$state/recovery.log" | tail -n 1 | grep . || echo
# Of clients that knock before it can answer, ourselves among them, there may be many lines.
tail -c 100000 "$state/recovery.log" | grep -v -e 'FATAL:  the database system is ' -e 'DETAIL:  Consistent recovery state' | tail -c 6000
`

/** Lets nobody in but the OS user. */
export const recoveryHbaFile = 'replctl_restore_hba.conf'

/** Where a recovery ended. */
interface Reached {
  readonly lsn: Lsn
  /** When the last transaction that was replayed had committed. */
  readonly time: string | null
  readonly timeline: number
}

/**
 * Starts the copy alone (no network, no archiving), lets it recover, and opens it only when the target was reached: it
 * pauses there, is looked at, and then goes on. Where it ends without the target, it is stopped.
 */
export function recoverInstance(restore: Restore): Step {
  const { target } = restore
  return {
    title: `recover it, alone, to ${target.kind === 'latest' ? 'the end of the archive' : describeTarget(target)}, and open it`,
    node: restore.at,
    check: async (ctx) => {
      const record = await ownRecord(ctx)
      if (record?.phase === 'recovered' || record?.phase === 'opened') {
        return satisfied(`it reached ${record.reachedLsn} and opened on timeline ${record.newTimeline}`)
      }
      return record?.phase === 'fetched'
        ? pending('it is not recovered yet')
        : unknownUntil('the backup is fetched')
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      if (facts.postmaster?.isAlive !== true) await startRecovery(ctx, restore)
      else if (!isRecoveringAlone(facts, ctx.node.settings)) throw wasStarted(restore.node)
      try {
        const reached = await followRecovery(ctx, restore)
        await writeRestoreRecord(ctx, restore, {
          ...{ phase: 'recovered', reachedLsn: reached.lsn, reachedTime: reached.time },
          newTimeline: reached.timeline,
        })
      } catch (thrown) {
        // What a kill leaves running goes on by itself; what is known to have gone wrong does not.
        await stopInstance(ctx, restore.at)
        throw thrown
      }
    },
    undo: async (ctx) => {
      await stopInstance(ctx, restore.at)
      const socket = recoverySocketOf(ctx.node.settings.postgres.dataDir)
      await ctx.node.output(shellScript('remove the folder of the socket', 'rm -rf -- "$1"', [socket]))
    },
  }
}

async function startRecovery(ctx: StepContext, restore: Restore): Promise<void> {
  const { dataDir, port } = ctx.node.settings.postgres
  const facts = await lookAnew(ctx)
  const major = restore.choice.backup.major
  const directory = suitableBinaries(facts, major)?.directory ?? ''
  const socketDirectory = recoverySocketOf(dataDir)
  const hbaFile = `${dataDir}/${recoveryHbaFile}`
  const wish: RecoveryWish = {
    ...{ major, port, socketDirectory, hbaFile, target: restore.target, timeline: restore.choice.timeline },
    restoreCommand: restoreCommandLine(`${stateDirectoryOf(facts.home, restore.node)}/${archiveFiles.fetch}`),
    ...{ willArchive: restore.isMember, control: facts.control },
  }
  await ctx.node.output(shellScript('make a folder for the socket', socketFolderScript, [socketDirectory]))
  const main = `${dataDir}/postgresql.conf`
  const text = await readTextFile(ctx.node, main)
  if (text === null) {
    if (facts.control === null) throw new RangeError(`pg_control in ${dataDir} cannot be read`)
    await writeTextFile(ctx.node, main, leastPostgresqlConf(facts.control), { mode: '0600' })
  } else {
    const paths = ['data_directory', 'external_pid_file']
    await writeTextFile(ctx.node, main, commentOutSettings(text, paths, 'restored elsewhere'))
  }
  const auto = `${dataDir}/postgresql.auto.conf`
  await writeTextFile(ctx.node, auto, recoveryAutoConf((await readTextFile(ctx.node, auto)) ?? '', wish), {
    mode: '0600',
  })
  await writeTextFile(ctx.node, hbaFile, 'local all all peer\n', { mode: '0600' })
  const isOld = capabilitiesOf(major).recoveryConf
  await ctx.node.output(
    shellScript('set the recovery up', clearSignalsScript, [dataDir, isOld ? '' : 'recovery.signal']),
  )
  if (isOld)
    await writeTextFile(ctx.node, `${dataDir}/recovery.conf`, recoveryConfText(wish), { mode: '0600' })
  await ctx.node.output(
    stateScript(ctx.node, `start the recovery in ${dataDir}`, startRecoveryScript, [
      ...[directory, dataDir, restore.isMember ? 'member' : 'alone'],
    ]),
  )
}

/** A postmaster that was just started may not be there yet, on a host that is busy. */
const appearMs = 15_000

/** Waits as long as the recovery gets on, and has it open where it is to. */
async function followRecovery(ctx: StepContext, restore: Restore): Promise<Reached> {
  const patienceMs = Math.max(ctx.timeoutMs, 30_000)
  const startedAt = Date.now()
  let seen = ''
  let movedAt = Date.now()
  let pausedAt: { lsn: Lsn; time: string | null } | null = null
  let raised = ''
  let isSeen = false
  for (;;) {
    const facts = await look(ctx)
    const [count = '0', lower = '', ...log] = (
      await ctx.node.output(stateScript(ctx.node, 'read the log of the recovery', logScript))
    ).split('\n')
    const nowRaised = findRaisedSetting(lower)
    if (nowRaised !== null && nowRaised !== raised) {
      // It stands, or ended, where the primary got larger settings. That is no target.
      raised = nowRaised
      ctx.progress({ message: `starts again with larger settings: ${raised}` })
      await stopInstance(ctx, restore.at)
      await startRecovery(ctx, restore)
      isSeen = false
      movedAt = Date.now()
      continue
    }
    isSeen ||= facts.postmaster?.isAlive === true
    const hasEnded = isSeen || /(FATAL|PANIC): /.test(log.join('\n')) || Date.now() - movedAt > appearMs
    if (facts.postmaster?.isAlive !== true && hasEnded) throw recoveryEnded(restore, log.join('\n'))
    if (facts.instance !== null) {
      try {
        const sql = await sqlOf(ctx, facts)
        if (!facts.instance.isInRecovery) return await requireReached(ctx, restore, pausedAt)
        if (facts.instance.isReplayPaused) {
          const at = await sql.json<{ lsn: Lsn; time: string | null; paused: boolean }>(
            `SELECT json_build_object('lsn', pg_last_wal_replay_lsn(), 'time', pg_last_xact_replay_timestamp(),
               'paused', pg_is_wal_replay_paused())`,
          )
          pausedAt = at
          await refuseForeignDirectory(ctx, restore)
          requireTarget(restore, at)
          await sql.execute('SELECT pg_wal_replay_resume()')
        }
      } catch (thrown) {
        // It ended just now: why stands in its log.
        if (asReplctlError(thrown).code !== 'not-answering') throw thrown
      }
    }
    if (ctx.signal.aborted) throw new ReplctlError('interrupted', 'interrupted during the recovery')
    const { instance, postmaster, control } = facts
    const reached = `${instance?.replayLsn ?? ''} ${control?.minRecoveryEndLsn ?? ''} ${control?.checkpointLsn ?? ''}`
    const now = `${count} ${reached} ${postmaster?.status ?? ''} ${lastProgressOf(log.join('\n')) ?? ''}`
    if (now !== seen) {
      seen = now
      movedAt = Date.now()
    }
    if (Date.now() - movedAt > patienceMs) throw standsStill(restore, patienceMs, log.join('\n'))
    ctx.progress({
      message: `${count} segments from the archive${facts.instance?.replayLsn ? `, replayed ${facts.instance.replayLsn}` : ''}`,
    })
    // Often at first, when a short one may be over at once.
    await new Promise((resolve) => setTimeout(resolve, Math.min(500, 40 + (Date.now() - startedAt) / 20)))
  }
}

/** A copied postgresql.conf may include a file that names another data directory: that would open somebody else's data. */
async function refuseForeignDirectory(ctx: StepContext, restore: Restore): Promise<void> {
  const { dataDir } = ctx.node.settings.postgres
  const sql = await sqlOf(ctx, await look(ctx))
  const named = await sql.value(
    "SELECT min(sourcefile) FROM pg_file_settings WHERE name = 'data_directory' AND setting IS NOT NULL",
  )
  if (named === null) return
  throw new ReplctlError('restore-failed', `the restored configuration names a data directory of its own`, {
    detail: `${named} sets data_directory; started later, the server would not open ${dataDir}.`,
    hint: 'Take that line out of the included file, then restore again.',
    node: restore.node.name,
  })
}

/** What was replayed when it paused is at the target, or just beside it as recovery targets are. */
function requireTarget(restore: Restore, at: { lsn: Lsn; time: string | null }): void {
  const { target } = restore
  const isPast = target.kind === 'time' && at.time !== null && Date.parse(at.time) > target.atMs
  const isShort = target.kind === 'lsn' && compareLsn(at.lsn, target.lsn) < 0
  if (!isPast && !isShort) return
  throw unreached(
    restore,
    `It paused at ${at.lsn}, the last transaction is of ${at.time ?? 'an unknown time'}.`,
  )
}

/** Proves by the new timeline's own history file why and where the recovery ended. */
async function requireReached(
  ctx: StepContext,
  restore: Restore,
  pausedAt: { time: string | null } | null,
): Promise<Reached> {
  const facts = await look(ctx)
  if (facts.instance === null) throw unreached(restore, 'It does not answer any more.')
  const sql = await sqlOf(ctx, facts)
  await refuseForeignDirectory(ctx, restore)
  const timeline = Number(
    await sql.value('SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)').then(hex),
  )
  const path = `${ctx.node.settings.postgres.dataDir}/pg_wal/${historyFileName(timeline)}`
  const history = parseTimelineHistory((await readTextFile(ctx.node, path)) ?? '', timeline)
  const end = history.switches.at(-1)
  if (end === undefined || timeline === restore.choice.timeline) {
    throw unreached(restore, `It opened on timeline ${timeline} without a history file.`)
  }
  if (!isReasonOf(restore.target, end.reason))
    throw unreached(restore, `It ended at ${end.leftAt}: "${end.reason}".`)
  requireWholeArchive(restore, end)
  const time = await sql.value('SELECT pg_last_xact_replay_timestamp()::text')
  await sql.execute('CHECKPOINT', { timeoutMs: 600_000 })
  return { lsn: end.leftAt, time: time ?? pausedAt?.time ?? null, timeline }
}

const hex = (text: string | null): number => Number.parseInt(text ?? '', 16)

/** The end of the archive is where its last segment is: an end before that is a gap, or a damaged segment. */
function requireWholeArchive({ choice, target, node }: Restore, end: TimelineSwitch): void {
  if (target.kind !== 'latest' || choice.lastSegment === null) return
  const begin = walFileStart(choice.lastSegment, choice.backup.walSegmentSizeBytes)
  if (compareLsn(end.leftAt, begin) >= 0) return
  throw new ReplctlError('target-unreachable', 'the recovery ended before the end of the archive', {
    detail: `It ended at ${end.leftAt}, and the archive's last segment ${choice.lastSegment} begins at ${begin}.`,
    hint: `Find the segment that cannot be read: replctl backup verify ${choice.backup.id}`,
    node: node.name,
  })
}

function unreached(restore: Restore, detail: string): ReplctlError {
  return new ReplctlError(
    'target-unreachable',
    `the recovery did not reach ${describeTarget(restore.target)}`,
    {
      detail,
      hint: 'The instance was not opened. Choose another target: replctl restore … --latest',
      node: restore.node.name,
    },
  )
}

/** The server stopped by itself: it says why. */
function recoveryEnded(restore: Restore, log: string): ReplctlError {
  const fatals = [...log.matchAll(/FATAL: {2}(.*)/g)].map((match) => match[1] ?? '')
  // Clients that knocked meanwhile are told off with FATAL as well.
  const fatal = fatals.findLast((line) => !/^the database system is/.test(line)) ?? ''
  const isTarget = /recovery ended before configured recovery target|stop point is before consistent/.test(
    log,
  )
  if (isTarget) return unreached(restore, `PostgreSQL said: ${fatal}.`)
  const location = /for Tablespace\/CREATE: \d+ "(.*)"/.exec(log)?.[1]
  if (location !== undefined) return noPlaceFor(restore, location, fatal)
  return new ReplctlError('restore-failed', `the recovery on ${restore.node.name} ended by itself`, {
    detail: `Its log ends with: ${log.trim().split('\n').slice(-12).join('\n')}`,
    hint: 'Mend what it names, then run the command again.',
    node: restore.node.name,
  })
}

/** A tablespace that is younger than the backup. */
function noPlaceFor({ isMember, node, choice }: Restore, location: string, fatal: string): ReplctlError {
  const { name } = node
  if (isMember) {
    return new ReplctlError('tablespace-unmapped', `there is no place on ${name} for a tablespace`, {
      detail: `It was created after backup ${choice.backup.id} was begun. PostgreSQL said: ${fatal}.`,
      hint: `Make ${location} an empty folder that belongs to the OS user, then run the command again.`,
      node: name,
    })
  }
  return new ReplctlError('tablespace-unmapped', 'a tablespace is younger than the backup', {
    detail: `Its WAL has it created in ${location}. What runs on ${name} may have its own files there, and two instances would write to them: PostgreSQL was stopped before that.`,
    hint: `Take a new backup, and restore that one: replctl backup. Or choose a target before the tablespace was created (--to-time, --to-lsn).`,
    node: name,
  })
}

function standsStill(restore: Restore, patienceMs: number, log: string): ReplctlError {
  const waits = [...log.matchAll(/archive-fetch: \S+ recovery waits for (\S+),/g)].at(-1)?.[1]
  if (waits !== undefined) {
    const said = [...log.matchAll(/^archive-fetch: [^:]+: (?!recovery waits)(.*)$/gm)].at(-1)?.[1]
    return new ReplctlError(
      'archive-failing',
      `${restore.node.name} cannot fetch ${waits} from the archive`,
      {
        detail: `Nothing moved for ${Math.round(patienceMs / 1000)} s, so the recovery was given up; nothing was opened. ${said === undefined ? '' : `It was said: ${said}.`}`,
        hint: 'Make the archive host reachable from there ("replctl archive check --deep" names a segment that is damaged), then run the command again.',
        node: restore.node.name,
      },
    )
  }
  // The last checkpoint of a large cache, or a slow disk, may take long without a word.
  return new ReplctlError(
    'timeout',
    `the recovery on ${restore.node.name} stands still for ${Math.round(patienceMs / 1000)} s`,
    {
      detail: `Its log ends with: ${log.trim().split('\n').slice(-6).join('\n')}`,
      hint: 'It may still get on: the same command, with a longer --timeout, waits for it; "replctl abort" takes it back.',
      node: restore.node.name,
    },
  )
}
