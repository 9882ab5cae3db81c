import type { NodeFacts } from '../cluster/facts.ts'
import type { ArchiveSettings, NodeSettings } from '../cluster/inventory.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import type { Node } from '../node/node.ts'
import { serviceOf, startFailed } from '../node/service.ts'
import { surveyNode } from '../node/survey.ts'
import { memberAutoConf, settingsOfHost, standaloneAutoConf } from '../postgres/recovery-files.ts'
import { parseTimelineHistory } from '../postgres/timeline-history.ts'
import { defaultWalSegmentSizeBytes, historyFileName, walFileName } from '../postgres/wal-file.ts'
import { isRecoveringAlone, recoverySocketOf } from './end-restore.ts'
import { stopInstance } from './fence-instance.ts'
import { signOfLife } from './fence-unreachable.ts'
import { ask, awaitState, look, sqlOf } from './look.ts'
import { recoveryHbaFile } from './recover-instance.ts'
import { suitableBinaries } from './require-binaries.ts'
import { type AbsentPrimary, requireNoSignOfLife } from './require-no-sign-of-life.ts'
import { ownRecord, type Restore, writeRestoreRecord } from './restore-record.ts'
import { startInstance } from './start-instance.ts'

const autoConf = 'postgresql.auto.conf'

/** What an instance that stands beside the cluster says of itself once it is the operator's. */
interface Standing {
  readonly archive_mode: string
  readonly cluster_name: string
  readonly recovering: boolean
  readonly directory: string
}

/**
 * Gives an instance that was restored beside the cluster settings of its own and starts it for good: it archives
 * nowhere, follows nobody, and waits for no standby. Read back from the running server.
 */
export function settleBeside(restore: Restore): Step {
  const standing = async (ctx: StepContext): Promise<Standing | null> => {
    const facts = await look(ctx)
    if (facts.instance === null) return null
    const sql = await sqlOf(ctx, facts)
    return await sql.json<Standing>(
      `SELECT json_build_object('archive_mode', current_setting('archive_mode'),
         'cluster_name', current_setting('cluster_name'), 'recovering', pg_is_in_recovery(),
         'directory', current_setting('data_directory'))`,
    )
  }
  return {
    title: 'give it settings of its own (it archives nowhere and follows nobody), and start it',
    node: restore.at,
    check: async (ctx) => {
      const record = await ownRecord(ctx)
      if (record?.phase !== 'recovered') return unknownUntil('it is recovered')
      const is = await standing(ctx)
      if (is === null) return pending('it is stopped')
      return is.archive_mode === 'off' && is.cluster_name === 'restored' && !is.recovering
        ? satisfied(`it runs on port ${ctx.node.settings.postgres.port}, archive_mode is off`)
        : pending('it still has the settings of the recovery')
    },
    apply: async (ctx) => {
      const { dataDir, port } = ctx.node.settings.postgres
      const { major } = restore.choice.backup
      await stopInstance(ctx, restore.at)
      // Its own tablespaces it may make again.
      await ctx.node.output(shellScript('open pg_tblspc', 'chmod u+w "$1/pg_tblspc"', [dataDir]))
      const auto = `${dataDir}/${autoConf}`
      const own = `${dataDir}/pg_hba.conf`
      const hasOwn = (await readTextFile(ctx.node, own)) !== null
      const before = (await readTextFile(ctx.node, auto)) ?? ''
      const write = async (isElsewhere: boolean): Promise<void> => {
        const hbaFile = hasOwn ? own : `${dataDir}/${recoveryHbaFile}`
        const text = standaloneAutoConf(before, { major, port, hbaFile, isElsewhere })
        await writeTextFile(ctx.node, auto, text, { mode: '0600' })
      }
      await write(false)
      await clearAway(ctx, hasOwn)
      const facts = await look(ctx)
      const service = serviceOf(ctx.node, facts, suitableBinaries(facts, major)?.directory ?? '')
      const start = () => ctx.node.run(service.start, { timeoutMs: Math.max(ctx.timeoutMs, 60_000) })
      const asConfigured = await start()
      if (asConfigured.status !== 0) {
        const said = asConfigured.stderr || asConfigured.stdout
        await write(true)
        const started = await start()
        if (started.status !== 0)
          throw startFailed(restore.node.name, service, started.stderr || started.stdout)
        ctx.warn(startedElsewhere(restore, said))
      }
      await awaitState(
        ctx,
        'the restored instance answers',
        async () => (await look(ctx)).instance ?? undefined,
      )
      const is = await standing(ctx)
      if (is?.archive_mode === 'off') return
      await stopInstance(ctx, restore.at)
      throw new ReplctlError('restore-failed', 'the restored instance would archive', {
        detail: `Its archive_mode is ${is?.archive_mode ?? 'unknown'}; it was stopped.`,
        node: restore.node.name,
      })
    },
    undo: (ctx) => stopInstance(ctx, restore.at),
  }
}

/** Hours of work are not thrown away because a certificate lies on another host. */
function startedElsewhere({ node }: Restore, said: string): ReplctlError {
  return new ReplctlError(
    'setting-overridden',
    `what was restored on ${node.name} does not start with the settings that came with it`,
    {
      detail: `PostgreSQL said: ${said.trim().split('\n').slice(-4).join('\n')}. It runs without these of its own: ${settingsOfHost.join(', ')}.`,
      hint: 'They stand at the end of its postgresql.auto.conf. Set them as this host needs them, then restart it.',
      node: node.name,
    },
  )
}

async function clearAway(ctx: StepContext, removesHba: boolean): Promise<void> {
  const { dataDir } = ctx.node.settings.postgres
  const script =
    'rm -rf -- "$1"; rm -f -- "$2/backup_label.old" "$2/backup_manifest"; [ -z "$3" ] || rm -f -- "$2/$3"'
  await ctx.node.output(
    shellScript('clear away what the recovery needed', `${script}; :`, [
      ...[recoverySocketOf(dataDir), dataDir, removesHba ? recoveryHbaFile : ''],
    ]),
  )
}

/** The recovered instance is stopped and keeps nothing of the recovery's settings: it can join the cluster. */
export function settleAsMember(restore: Restore): Step {
  return {
    title: 'stop it, and take the settings of the recovery away',
    node: restore.at,
    check: async (ctx) => {
      const phase = (await ownRecord(ctx))?.phase
      if (phase === 'opened') return satisfied('they are gone')
      if (phase !== 'recovered') return unknownUntil('it is recovered')
      if (isRecoveringAlone(await look(ctx), ctx.node.settings)) return pending('it runs alone')
      const text = (await readTextFile(ctx.node, `${ctx.node.settings.postgres.dataDir}/${autoConf}`)) ?? ''
      return memberAutoConf(text) === text ? satisfied('they are gone') : pending('they are there')
    },
    apply: async (ctx) => {
      const { dataDir } = ctx.node.settings.postgres
      await stopInstance(ctx, restore.at)
      const text = (await readTextFile(ctx.node, `${dataDir}/${autoConf}`)) ?? ''
      await clearAway(ctx, true)
      await writeTextFile(ctx.node, `${dataDir}/${autoConf}`, memberAutoConf(text), { mode: '0600' })
    },
  }
}

/** Who could have become, or stayed, a primary while a node was restored. */
interface MaybePrimaries {
  readonly everybody: readonly NodeName[]
  /** The others that answered when it began: they look for signs of life, too. */
  readonly others: readonly NodeName[]
  readonly unreachable: readonly NodeSettings[]
  readonly absent: readonly AbsentPrimary[]
}

/**
 * Right before it opens to the network: nobody else has become the primary while it was restored, and whoever could not be reached
 * when it began shows no sign of life. That may be hours ago: an old primary's host may have been switched on since.
 */
export function requireNoOtherPrimary(node: NodeName, wish: MaybePrimaries): Step {
  const { everybody, others, unreachable, absent } = wish
  const witnesses = [node, ...others]
  return {
    title: 'look once more that no other node accepts writes',
    node,
    check: async (ctx) => {
      const own = await look(ctx)
      if (own.instance?.isInRecovery === false && own.mark?.phase === 'done')
        return satisfied('it leads already')
      const seen = await Promise.all(
        everybody.filter((name) => name !== node).map((name) => surveyAgain(ctx.on(name))),
      )
      const other = seen.find(
        (facts) =>
          facts.instance?.isInRecovery === false ||
          (facts.postmaster?.isAlive === true && facts.instance === null && !facts.hasStandbySignal),
      )
      if (other !== undefined) return refused(leadsMeanwhile(node, other.name, 'runs as a primary'))
      const isAway = (name: NodeName) => seen.some((one) => one.name === name && one.unreachable !== null)
      for (const oldPrimary of unreachable.filter(({ name }) => isAway(name))) {
        const sign = await signOfLife(ctx, oldPrimary, witnesses)
        if (sign !== null) return refused(leadsMeanwhile(node, oldPrimary.name, `is alive: ${sign}`))
      }
      for (const one of absent) {
        const { name } = one.node
        if (isAway(name)) continue
        const found = await requireNoSignOfLife(one, witnesses).check({ ...ctx, node: ctx.on(name) })
        if (found.is === 'refused') return found
      }
      return satisfied('none does')
    },
  }
}

/** A host that could not be reached when the operation began is tried anew. */
async function surveyAgain(node: Node): Promise<NodeFacts> {
  await node.transport.connect({ again: true }).catch(() => undefined)
  return await surveyNode(node)
}

function leadsMeanwhile(node: NodeName, other: NodeName, what: string): ReplctlError {
  return new ReplctlError('primary-alive', `${other} ${what}`, {
    detail: `${node} was restored meanwhile, and was not opened.`,
    hint: `Stop PostgreSQL on ${other} if the restored data is what you want, then run the command again.`,
    node: other,
  })
}

/**
 * Starts it with the cluster's settings, open to the network: the point of no return. It is written down first, so that
 * whoever comes after an interruption never takes it for something that may be removed.
 */
export function openToCluster(restore: Restore): Step {
  const start = startInstance(restore.at, { isToLead: true })
  return {
    ...start,
    title: 'start PostgreSQL as the primary of the cluster',
    pointOfNoReturn: true,
    apply: async (ctx) => {
      const record = await ownRecord(ctx)
      if (record === null) throw new RangeError('the record of the restore is gone')
      await writeRestoreRecord(ctx, restore, { ...record, phase: 'opened' })
      await start.apply?.(ctx)
    },
  }
}

/** The files of the archive by which a later recovery finds its way onto a new timeline. */
interface NewTimeline {
  readonly history: string
  /** Its first segment, which is whole, or being streamed. */
  readonly segment: string | null
  readonly hasHistory: boolean
  readonly hasSegment: boolean
}

async function lookForTimeline(ctx: StepContext, archive: ArchiveSettings): Promise<NewTimeline> {
  const { facts } = await ask(ctx)
  const timeline = facts.instance?.timeline ?? 1
  const size = Number(facts.instance?.settings.wal_segment_size?.value ?? defaultWalSegmentSizeBytes)
  const begin = parseTimelineHistory(facts.instance?.history ?? '', timeline).switches.at(-1)?.leftAt
  const history = historyFileName(timeline)
  const segment = begin === undefined ? null : walFileName(timeline, begin, size)
  const script = `
cd "$1" 2>/dev/null || exit 0
[ ! -s "$2" ] || echo history
for file in "$3" "$3".*; do if [ -f "$file" ]; then echo segment; break; fi; done
:
`
  const wal = `${archive.dir}/${facts.instance?.systemIdentifier}/wal`
  const command = shellScript(`look for ${history} and ${segment}`, script, [wal, history, segment ?? ''])
  const told = (await ctx.on(archiveHost).output(command)).split('\n')
  return {
    ...{ history, segment, hasHistory: told.includes('history') },
    hasSegment: segment === null || told.includes('segment'),
  }
}

/**
 * Without its history file in the archive, no later recovery could follow the new timeline. Without its first segment it would
 * follow the one that was left, where that one's of the same number is there: PostgreSQL looks for a segment on each timeline.
 */
export function awaitTimelineArchived(node: NodeName, archive: ArchiveSettings): Step {
  return {
    title: 'have the new timeline in the archive',
    node,
    comesOfEarlier: true,
    check: async (ctx) => {
      if ((await look(ctx)).instance === null) return unknownUntil('PostgreSQL is started')
      const { history, segment, hasHistory, hasSegment } = await lookForTimeline(ctx, archive)
      if (!hasHistory) return pending(`${history} is not there yet`)
      return hasSegment ? satisfied(`${history} is there`) : pending(`${segment} is not there yet`)
    },
    apply: async (ctx) => {
      await awaitState(ctx, `the history of the new timeline reaches the archive`, async () =>
        (await lookForTimeline(ctx, archive)).hasHistory ? true : undefined,
      )
      if ((await lookForTimeline(ctx, archive)).hasSegment) return
      const { sql } = await ask(ctx)
      await sql.execute('SELECT pg_switch_wal()')
      try {
        await awaitState(ctx, `the first segment of the new timeline reaches the archive`, async () =>
          (await lookForTimeline(ctx, archive)).hasSegment ? true : undefined,
        )
      } catch (thrown) {
        if (!(thrown instanceof ReplctlError) || thrown.code !== 'timeout') throw thrown
        ctx.warn(notArchived(node, (await lookForTimeline(ctx, archive)).segment ?? ''))
      }
    },
    // The history file is there, or apply had thrown; a segment that is late was told as a warning.
    verify: async () => undefined,
  }
}

function notArchived(node: NodeName, segment: string): ReplctlError {
  return new ReplctlError('archive-gap', `${segment} has not reached the archive yet`, {
    detail:
      'It is the first segment of the new timeline: until it is there, no restore onto this timeline is possible.',
    hint: '"replctl archive status" shows what holds archiving up; then take a backup: replctl backup',
    node,
  })
}
