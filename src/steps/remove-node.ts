import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { isSameMachine } from '../cluster/state-directory.ts'
import { timelineOf } from '../cluster/topology.ts'
import { refusalToDiscard, wayBack } from '../cluster/way-back.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readTextFile } from '../node/files.ts'
import { lookAtJob, stopJob } from '../node/jobs.ts'
import { stateScript } from '../node/node.ts'
import { readWalEnd } from '../node/own-wal.ts'
import { removeStartGuard } from '../node/start-guard.ts'
import { compareLsn, type TimelineId } from '../postgres/lsn.ts'
import {
  commonAncestor,
  forkPoint,
  parseTimelineHistory,
  type TimelineHistory,
} from '../postgres/timeline-history.ts'
import { historyFileName } from '../postgres/wal-file.ts'
import { endUnfinishedRestore, restoreJob } from './end-restore.ts'
import { removeStateFile, writeMark } from './ensure-mark.ts'
import { stopInstance } from './fence-instance.ts'
import { look, lookAnew, majorOf } from './look.ts'
import { purgeScript } from './purge-script.ts'
import { rewindJob } from './rewind-data-directory.ts'
import { baseBackupJob } from './take-base-backup.ts'

/**
 * A standby that leaves the cluster is stopped; it keeps its standby signal, so it never comes up as a primary. So is what still
 * fills or rewinds its data directory: it would go on without the cluster.
 */
export function stopStandby(node: NodeName, primary: NodeName): Step {
  const isOurs = async (ctx: StepContext, facts: NodeFacts): Promise<boolean> => {
    const [own, ours] = [facts, await look(ctx, primary)].map(systemIdentifierOf)
    return own === undefined || own === ours
  }
  return {
    title: 'stop PostgreSQL',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance?.isInRecovery === false) return refused(isPrimary(node))
      if (await isBeingFilled(ctx, facts)) return pending('its data directory is being filled')
      if (facts.postmaster?.isAlive !== true) return satisfied('it does not run')
      return (await isOurs(ctx, facts)) ? pending('it runs') : satisfied('what runs there is another cluster')
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance?.isInRecovery === false) throw isPrimary(node)
      if (await isBeingFilled(ctx, facts)) for (const job of jobs) await stopJob(ctx.node, job)
      if (facts.postmaster?.isAlive === true && (await isOurs(ctx, facts))) await stopInstance(ctx, node)
    },
  }
}

const jobs = [baseBackupJob, rewindJob, restoreJob]

async function isBeingFilled(ctx: StepContext, facts: NodeFacts): Promise<boolean> {
  if (!isBegun(facts) && facts.rejoin === null) return false
  const states = await Promise.all(jobs.map((job) => lookAtJob(ctx.node, job)))
  return states.some(({ isRunning }) => isRunning)
}

function systemIdentifierOf(facts: NodeFacts): string | undefined {
  return facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier
}

/**
 * Takes away what replctl keeps about a removed node on its host: the password first of all. A fence mark stays as long as
 * the data it speaks of: without it a former primary would look like any stopped standby, whose data may be deleted. So does the
 * mark of a clone that did not come to its end: without it, that would be nobody's, to be neither built nor purged.
 */
export function forgetNode(node: NodeName): Step {
  const isStillFenced = (facts: NodeFacts) => facts.fence !== null && facts.dataDirectoryState === 'instance'
  return {
    title: 'remove the start guard, the passfile and the mark',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const isFenceLeft = facts.fence !== null && !isStillFenced(facts)
      const isThere =
        facts.hasPassfile ||
        (facts.mark !== null && !isBegun(facts)) ||
        facts.record !== null ||
        facts.hasGuardScript ||
        isFenceLeft
      return isThere ? pending('they are there') : satisfied('there are none')
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      await removeStartGuard(ctx.node, facts, ctx.node.cluster)
      const fence = isStillFenced(facts) ? [] : ['fenced.json']
      const files = [
        'pgpass',
        'pgpass.earlier',
        ...(isBegun(facts) ? [] : ['node.json']),
        'cluster.json',
        'archive_key',
        'archive_key.pub',
        // Whoever deletes the data later has to know where its WAL is.
        ...(facts.dataDirectoryState === 'instance' || isBegun(facts) ? [] : ['wal_link']),
        ...fence,
      ]
      const script = 'for name in "$@"; do rm -f "$state/$name"; done'
      await ctx.node.output(
        stateScript(ctx.node, 'remove the passfile and the mark', `shift\n${script}`, files),
      )
    },
  }
}

/** What is to be deleted is a standby's data directory of this cluster; looked at before anything is changed. */
export function requirePurgeable(node: NodeName, primary: NodeName): Step {
  return {
    title: 'require that its data directory is a standby of this cluster',
    node,
    check: async (ctx) => {
      const finding = await purgeDataDirectory(node, primary).check(ctx)
      return finding.is === 'pending' ? satisfied(finding.because) : finding
    },
  }
}

/** Deletes the data directory of a stopped standby of this cluster. Never a primary's, never one of another cluster. */
export function purgeDataDirectory(node: NodeName, primary: NodeName): Step {
  return {
    title: 'delete its data directory',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const { dataDir } = ctx.node.settings.postgres
      const isClone = isBegun(facts)
      if (facts.dataDirectoryState === 'missing' || (facts.dataDirectoryState === 'empty' && !isClone)) {
        return satisfied(`${dataDir} is ${facts.dataDirectoryState}`)
      }
      if (facts.instance?.isInRecovery === false) return refused(isPrimary(node))
      const there = await look(ctx, primary)
      const own =
        facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier ?? facts.mark?.systemIdentifier
      if (!isClone && (own === undefined || own !== there.instance?.systemIdentifier)) {
        return refused(foreign(node, dataDir, own, there.instance?.systemIdentifier))
      }
      if (!isClone && !facts.hasStandbySignal) {
        return refused(
          new ReplctlError('not-a-standby', `${dataDir} on ${node} is not a standby's`, {
            detail:
              'It has no standby signal: it may be a former primary that holds transactions nobody else has.',
            hint: wayBack(node),
            node,
          }),
        )
      }
      // A fenced former primary has a standby signal, too, and may hold what nobody else has.
      const refusal = isClone ? null : refusalToDiscard(facts, there)
      if (refusal !== null) return refused(refusal)
      if (!isClone && (await hasReceivedMore(ctx, facts, there))) return refused(holdsMore(facts, there))
      return pending(
        isClone ? `${dataDir} is a clone that was begun` : `${dataDir} is a standby of this cluster`,
      )
    },
    async apply(ctx) {
      const { dataDir } = ctx.node.settings.postgres
      // Looked at again right before it is gone: the check may be a moment old.
      const found = await this.check(ctx)
      if (found.is === 'refused') throw found.error
      const facts = await lookAnew(ctx)
      if (facts.postmaster?.isAlive === true) throw new RangeError('its postmaster still runs')
      const there = await look(ctx, primary)
      await stopJob(ctx.node, baseBackupJob)
      await stopJob(ctx.node, rewindJob)
      await endUnfinishedRestore(ctx)
      const isClone = isBegun(facts)
      if (!isClone) {
        // What it claimed when it was cloned may be another's by now. And from here on it is as good as a clone that was
        // begun: half of it may be gone when this is interrupted, and only the mark says that the rest may go.
        await removeStateFile(ctx, node, 'tablespaces')
        await writeMark(ctx, facts, 'cloning', '')
      }
      const isNeighbour = isSameMachine(ctx.node.settings, ctx.on(primary).settings)
      const used = isNeighbour ? (there.instance?.tablespaces ?? []).map((one) => one.location) : []
      const args = [dataDir, String(majorOf(isClone ? there : facts)), isClone ? 'begun' : 'built', ...used]
      const command = stateScript(ctx.node, `delete ${dataDir}`, purgeScript, args)
      const left = await ctx.node.output(command, { timeoutMs: 600_000 })
      for (const line of left.trim().split('\n').filter(Boolean)) ctx.warn(walLeft(node, line))
    },
  }
}

/** A clone of ours that did not come to its end, or a standby of which a purge took a part: nothing in it is of use. */
export function isBegun({ mark, dataDirectoryInode }: NodeFacts): boolean {
  return mark?.phase === 'cloning' && mark.inode !== '' && mark.inode === dataDirectoryInode
}

function walLeft(node: NodeName, line: string): ReplctlError {
  const [kind, folder = ''] = line.split('\t')
  return new ReplctlError('data-directory-kept', `${folder} on ${node} was not emptied`, {
    detail:
      kind === 'link'
        ? 'pg_wal of the deleted data directory was a link there, which replctl did not make and was not given.'
        : 'Its WAL is gone, but there are other files in it.',
    hint: 'Look who uses it, and delete what is of no use any more.',
    node,
  })
}

/** A stopped standby's pg_control tells what it replayed; one that replays late may have received much more. */
async function hasReceivedMore(ctx: StepContext, facts: NodeFacts, primary: NodeFacts): Promise<boolean> {
  const timeline = timelineOf(facts)
  const { instance } = primary
  if (facts.instance !== null || timeline === null || instance === null || instance.history === null)
    return false
  const theirs = parseTimelineHistory(instance.history, instance.timeline)
  if (timeline > 1 && (await isOtherBranch(ctx, timeline, theirs))) return true
  const fork = forkPoint(theirs, timeline)
  if (fork === undefined) return false
  const { lastRecord } = await readWalEnd(ctx.node, facts, timeline, fork)
  return lastRecord !== 'none' && lastRecord !== 'unknown' && compareLsn(lastRecord, fork) >= 0
}

/** Its timeline only has the number of one that the primary comes from, as its own history file says. */
async function isOtherBranch(
  ctx: StepContext,
  timeline: TimelineId,
  theirs: TimelineHistory,
): Promise<boolean> {
  const path = `${ctx.node.settings.postgres.dataDir}/pg_wal/${historyFileName(timeline)}`
  const text = await readTextFile(ctx.node, path)
  if (text === null) return false
  return commonAncestor(parseTimelineHistory(text, timeline), theirs)?.timeline !== timeline
}

function holdsMore(facts: NodeFacts, primary: NodeFacts): ReplctlError {
  return new ReplctlError('node-diverged', `${facts.name} has WAL that ${primary.name} never had`, {
    detail: 'It had received it when it was stopped, on a line that the primary does not come from.',
    hint: wayBack(facts.name),
    node: facts.name,
  })
}

function isPrimary(node: NodeName): ReplctlError {
  return new ReplctlError('primary-alive', `${node} is the primary`, {
    hint: 'Only standbys can be removed. Promote another node first, or switch over.',
    node,
  })
}

function foreign(
  node: NodeName,
  dataDir: string,
  own: string | undefined,
  wanted: string | undefined,
): ReplctlError {
  return new ReplctlError('foreign-data-directory', `${dataDir} on ${node} does not belong to this cluster`, {
    detail: `Its system identifier is ${own ?? 'unknown'}, the cluster's is ${wanted ?? 'unknown'}.`,
    hint: 'It is left alone. Remove it yourself if you are sure.',
    node,
  })
}
