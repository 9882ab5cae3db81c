import type { NodeFacts } from '../cluster/facts.ts'
import type { ArchiveSettings, Inventory } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { receivedLsn } from '../cluster/topology.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stateScript } from '../node/node.ts'
import { defaultWalSegmentSizeBytes, walFileName } from '../postgres/wal-file.ts'
import { endWalReceiver } from './end-walreceiver.ts'
import { ask, look } from './look.ts'
import { resumeReplay } from './resume-replay.ts'

/** `needed`: the archive may hold a confirmed commit that no standby has; `wanted`: what it has is worth having. */
export type ArchivedEnd = 'needed' | 'wanted'

/**
 * With `mode: stream` the archive may have more of the timeline than any standby: what a dead primary wrote last. Whether it
 * can be asked is found out before anything is changed. Where it may hold a confirmed commit that the candidate lacks, a
 * promotion without it is refused; else its absence is a warning.
 */
export function requireArchivedEnd(candidate: NodeName, inventory: Inventory, end: ArchivedEnd): Step[] {
  const { archive } = inventory
  if (archive?.mode !== 'stream') return []
  return [
    {
      title: `require the end of the WAL in the archive on ${archive.host} to be readable`,
      node: candidate,
      check: async (ctx) => {
        const facts = await look(ctx)
        if (facts.instance?.isInRecovery !== true) return satisfied('it is no standby any more')
        const compared = await compare(ctx, facts)
        if (compared.is !== 'unknown') return satisfied('it is')
        const error = archiveUnread(candidate, archive, end, compared.why)
        if (end === 'needed') return refused(error)
        ctx.warn(error)
        return satisfied('it is not, and the promotion does not depend on it')
      },
    },
  ]
}

/**
 * Before it is promoted, the candidate gets what the archive alone received: its own restore_command brings it, as soon as
 * nothing streams to it. The old primary is stopped by then: no more can come.
 */
export function fetchArchivedEnd(candidate: NodeName, inventory: Inventory, end: ArchivedEnd): Step[] {
  const { archive } = inventory
  if (archive?.mode !== 'stream') return []
  return [
    {
      title: `get what the archive on ${archive.host} alone received`,
      node: candidate,
      leavesClusterAlone: true,
      comesOfEarlier: true,
      check: async (ctx) => {
        if (ctx.isDryRun) return unknownUntil('the old primary is stopped')
        const facts = await look(ctx)
        if (facts.instance?.isInRecovery !== true) return satisfied('it is no standby any more')
        const compared = await compare(ctx, facts, end === 'wanted')
        if (compared.is === 'level') return satisfied('the archive has nothing that it lacks')
        if (compared.is === 'ahead') return pending('the archive has more')
        return end === 'needed' ? pending('the archive does not answer') : satisfied('it does not answer')
      },
      apply: async (ctx) => {
        const deadline = Date.now() + ctx.timeoutMs
        for (let round = 0; ; round++) {
          const { facts, sql } = await ask(ctx)
          await resumeReplay(ctx, facts)
          const compared = await compare(ctx, facts)
          if (compared.is === 'level') return
          if (Date.now() >= deadline || ctx.signal.aborted) {
            const why =
              compared.is === 'unknown' ? compared.why : `${candidate} did not get it within the time limit.`
            const error = archiveUnread(candidate, archive, end, why)
            if (end === 'needed') throw error
            ctx.warn(error)
            return
          }
          // While it believes to be streaming, it does not look into the archive; a reload wakes one that waits to try again.
          if (round % 8 === 0) await endWalReceiver(ctx, sql)
          await sql.execute('SELECT pg_reload_conf()')
          await new Promise((resolve) => setTimeout(resolve, 150))
        }
      },
      verify: async () => undefined,
    },
  ]
}

type Compared = { readonly is: 'level' | 'ahead' } | { readonly is: 'unknown'; readonly why: string }

/** `soon`: an archive host that has just not answered is not waited for once more. */
async function compare(ctx: StepContext, facts: NodeFacts, soon = false): Promise<Compared> {
  const received = receivedLsn(facts)
  const { instance } = facts
  if (instance === null || received === null) return { is: 'unknown', why: 'It has received nothing yet.' }
  const size = Number(instance.settings.wal_segment_size?.value ?? defaultWalSegmentSizeBytes)
  const { dataDir } = ctx.node.settings.postgres
  const command = stateScript(
    ctx.node,
    'compare pg_wal with the archive',
    '"$state/archive-fetch" --compare "$2" "$3" "$4"',
    [walFileName(instance.timeline, received, size), `${dataDir}/pg_wal`, soon ? 'soon' : ''],
  )
  const { status, stdout, stderr } = await ctx.node.run(command, {
    timeoutMs: Math.max(ctx.timeoutMs, 20_000),
  })
  const word = stdout.trim()
  if (status === 0 && (word === 'level' || word === 'ahead')) return { is: word }
  return { is: 'unknown', why: stderr.trim() }
}

function archiveUnread(
  candidate: NodeName,
  archive: ArchiveSettings,
  end: ArchivedEnd,
  why: string,
): ReplctlError {
  return end === 'needed'
    ? new ReplctlError(
        'confirmed-commits-at-risk',
        `refused to promote ${candidate}: the archive may hold confirmed commits that it lacks`,
        {
          detail: `The archive on ${archive.host} confirms commits (archive.synchronous), and it could not be read. ${why}`,
          hint: `Bring ${archive.host} back and run promote again. To go on without it and lose such commits: --allow-data-loss.`,
          node: candidate,
        },
      )
    : new ReplctlError('archive-failing', `the end of the WAL in the archive could not be read`, {
        detail: `What only the archive on ${archive.host} received is not on ${candidate}. ${why}`,
        hint: 'Transactions that only the archive has are lost with the promotion. "replctl archive status" shows whether it can be reached.',
        node: candidate,
      })
}
