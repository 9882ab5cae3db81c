import {
  type BackupCatalog,
  byFinish,
  type IncomingBackup,
  incomingOf,
  isBackupOn,
  judgeBackups,
} from '../../cluster/backup-catalog.ts'
import { chooseBackupSource } from '../../cluster/choose-backup-source.ts'
import type { NodeFacts } from '../../cluster/facts.ts'
import type { ArchiveSettings } from '../../cluster/inventory.ts'
import { archiveHost, type NodeName, nodeName } from '../../cluster/names.ts'
import { clusterIdentifier } from '../../cluster/record.ts'
import type { Topology } from '../../cluster/topology.ts'
import { asReplctlError, ReplctlError } from '../../errors.ts'
import { lookAtJob } from '../../node/jobs.ts'
import { requireArchive } from '../../node/read-archive.ts'
import { readCatalog, readCatalogs } from '../../node/read-catalog.ts'
import { nextBackupId } from '../../postgres/backup-metadata.ts'
import { parseTimelineHistory } from '../../postgres/timeline-history.ts'
import { capabilitiesOf } from '../../postgres/versions.ts'
import { listedBackup, takenText } from '../../report/backups.ts'
import { takeBackup } from '../../runbooks/backup.ts'
import { backupJobOf } from '../../steps/archive-backup.ts'
import { type ArchiveAccess, openArchive, surveyForArchive } from '../archive-session.ts'
import { type ClusterSession, findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Decision, type Observation, operate } from '../operation.ts'

interface Wish {
  readonly id: string
  readonly from: string | null
  readonly label: string | null
  readonly isIncremental: boolean
}

/** `replctl backup [--from NODE] [--label TEXT] [--incremental]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const from = call.options.from as string | undefined
    const isAbort = call.options.isAbort === true
    if (from !== undefined && !isAbort) findNode(session.inventory, from)
    const label = readLabel(call.options.label as string | undefined)
    const archive = await openArchive(session)
    const { id, left } = await chooseId(call, session, archive)
    const wish: Wish = {
      id,
      ...{ from: from ?? null, label },
      isIncremental: call.options.incremental === true,
    }
    return await operate(call, {
      session,
      wish: { ...wish },
      isAside: true,
      // One of which nothing lies in the archive yet is begun anew by this very run: nobody has to finish it.
      goesOnWith: (found) => call.options.id === undefined && !left.some((one) => one === found.wish.id),
      decide: async (observation) =>
        isAbort
          ? undoBackup(
              session,
              archive.settings,
              await readCatalogs(
                archive.host,
                archive.settings.dir,
                clusterIdentifier(observation.survey) ?? '',
              ),
              wish,
            )
          : await decide(session, archive, observation, wish),
    })
  } finally {
    await session.close()
  }
}

function readLabel(label: string | undefined): string | null {
  if (label === undefined) return null
  if (label === '' || /[\0\r\n]/.test(label) || Buffer.byteLength(label) > 200) {
    throw new ReplctlError('usage', '--label: it has 1 to 200 bytes in one line')
  }
  return label
}

/**
 * A backup that runs, or was copied a while ago by a replctl that was killed, is gone on with; else a new one begins. `left`: of which
 * something lies in the archive, finished or not.
 */
async function chooseId(
  call: Call,
  session: ClusterSession,
  archive: ArchiveAccess,
): Promise<{ readonly id: string; readonly left: readonly string[] }> {
  if (typeof call.options.id === 'string') return { id: call.options.id, left: [] }
  const catalogs = await readCatalogs(archive.host, archive.settings.dir)
  const identify = async () => clusterIdentifier(await surveyForArchive(session))
  for (const catalog of await unfinishedOf(catalogs, identify)) {
    const job = await lookAtJob(archive.host, backupJobOf(catalog.systemIdentifier))
    const begun = incomingOf([catalog], archive.host.cluster, job.isRunning)
    if (begun !== null) return { id: begun, left: [begun] }
  }
  const taken = catalogs.flatMap((catalog) => catalog.backups.map(({ id }) => id))
  const incoming = catalogs.flatMap((catalog) => catalog.incoming.map(({ id }) => id))
  return { id: nextBackupId(new Date(), taken), left: [...taken, ...incoming] }
}

/**
 * Catalogs of this cluster with something unfinished. Another cluster may have the same name: where there are several the nodes say
 * which is meant.
 */
export async function unfinishedOf(
  catalogs: readonly BackupCatalog[],
  identify: () => Promise<string | null>,
): Promise<readonly BackupCatalog[]> {
  const unfinished = catalogs.filter(({ incoming }) => incoming.length > 0)
  if (unfinished.length === 0 || catalogs.length === 1) return unfinished
  const identifier = await identify()
  return unfinished.filter((catalog) => identifier === null || catalog.systemIdentifier === identifier)
}

/**
 * Taking a backup back needs the archive host alone: the source may be down, or no node any more. Its name stands in the titles
 * of steps, by which the journal knows them.
 */
export function undoBackup(
  { inventory, templates }: Pick<ClusterSession, 'inventory' | 'templates'>,
  archive: ArchiveSettings,
  catalogs: readonly BackupCatalog[],
  wish: Pick<Wish, 'id' | 'from'>,
): Decision {
  // Another cluster's may have begun in the same second.
  const isIt = ({ id, request }: IncomingBackup) =>
    id === wish.id && (request === null || request.cluster === inventory.cluster)
  const catalog = catalogs.find(({ incoming }) => incoming.some(isIt))
  const request = catalog?.incoming.find(isIt)?.request
  const [first] = inventory.nodes
  if (first === undefined) throw new RangeError('an inventory has nodes')
  const name = request?.source ?? wish.from ?? first.name
  const source = inventory.nodes.find((node) => node.name === name) ?? { ...first, name: nodeName(name) }
  const systemIdentifier = (catalog ?? catalogs[0])?.systemIdentifier ?? ''
  const backup = {
    ...{ inventory, archive, id: wish.id, source, systemIdentifier, label: '' },
    ...{ primary: null, parent: request?.parent ?? null },
  }
  return { plan: takeBackup({ inventory, templates }, backup, []) }
}

async function decide(
  session: ClusterSession,
  archive: ArchiveAccess,
  { survey, topology }: Observation,
  wish: Wish,
): Promise<Decision> {
  const { inventory, templates } = session
  const systemIdentifier = clusterIdentifier(survey)
  if (systemIdentifier === null) {
    const unreachable = survey.find((facts) => facts.unreachable !== null)?.unreachable
    throw (
      unreachable ??
      new ReplctlError('no-primary', 'there is no cluster to take a backup of yet', {
        hint: 'Begin it: replctl init primary',
      })
    )
  }
  const catalog = await readCatalog(archive.host, archive.settings.dir, systemIdentifier)
  if (catalog.backups.length === 0) await requireArchive(archive.host, archive.settings.dir, systemIdentifier)
  const begun = catalog.incoming.find(({ id }) => id === wish.id)?.request ?? null
  const named = begun?.source ?? wish.from ?? undefined
  const source = sourceOf(
    topology,
    named === undefined ? undefined : findNode(inventory, named).name,
    begun !== null,
  )
  const facts = survey.find((one) => one.name === source)
  const major = Math.floor((facts?.instance?.serverVersionNumber ?? 0) / 10_000)
  const parent = begun === null ? parentOf(wish, major, catalog, facts) : begun.parent
  if (parent !== null && begun === null) requireSummaries(facts)
  const backup = {
    ...{ inventory, archive: archive.settings, id: wish.id, systemIdentifier, parent },
    source: findNode(inventory, source),
    primary: topology.primary,
    label: begun?.label ?? wish.label ?? `replctl ${wish.id}`,
  }
  const listed = async () => {
    const after = await readCatalog(archive.host, archive.settings.dir, systemIdentifier)
    const found = judgeBackups(after).find(({ id }) => id === wish.id)
    if (found === undefined) throw new RangeError(`backup ${wish.id} is not listed`)
    if (!found.isGood) throw notGood(wish.id, found.damage)
    return listedBackup(found)
  }
  const programs = [
    ...(capabilitiesOf(major).backupManifest ? ['pg_verifybackup'] : []),
    ...(parent === null ? [] : ['pg_combinebackup']),
  ]
  return {
    plan: takeBackup({ inventory, templates }, backup, programs),
    result: async (_after, outcome) =>
      outcome.steps.some((step) => step.state === 'planned') ? {} : await listed(),
    text: (_after, _outcome, paint, result) => takenText(result as never, paint),
  }
}

/** What it builds on may have been damaged while it was taken. */
function notGood(id: string, damage: readonly string[]): ReplctlError {
  return new ReplctlError('backup-damaged', `backup ${id} was taken and cannot be relied on`, {
    detail: `${damage.join('; ')}.`,
    hint: 'Take a full one: replctl backup',
    node: archiveHost,
  })
}

function sourceOf(topology: Topology, named: NodeName | undefined, isBegun: boolean): NodeName {
  try {
    return chooseBackupSource(topology, named)
  } catch (thrown) {
    const error = asReplctlError(thrown)
    const hint = `A backup of ${named} was begun and interrupted. To give it up and begin anew: replctl abort`
    throw isBegun ? error.with({ hint }) : error
  }
}

/** Without them the server does not know what has changed. */
function requireSummaries(facts: NodeFacts | undefined): void {
  if (facts === undefined || facts.instance?.settings.summarize_wal?.value === 'on') return
  throw new ReplctlError('incremental-unavailable', `${facts.name} keeps no summaries of its WAL`, {
    detail:
      'summarize_wal is off there. They begin when it is turned on: the first incremental backup needs a full one after that.',
    hint: `Set it in the inventory (postgres.parameters: { summarize_wal: on }), then: replctl ${facts.instance?.isInRecovery === true ? 'add-standby' : 'init primary'} ${facts.name}, replctl backup`,
    node: facts.name,
  })
}

/** The backup that an incremental one builds on: the last good one of the source's own history, whatever its kind. */
function parentOf(
  { isIncremental }: Wish,
  major: number,
  catalog: BackupCatalog,
  source: NodeFacts | undefined,
): string | null {
  if (!isIncremental) return null
  if (!capabilitiesOf(major).incrementalBackup) {
    throw new ReplctlError('incremental-unavailable', `PostgreSQL ${major} has no incremental backups`, {
      detail: 'They exist from PostgreSQL 17 on.',
      hint: 'Take a full one: replctl backup',
    })
  }
  const good = judgeBackups(catalog).flatMap(({ isGood, metadata }) => (isGood && metadata ? [metadata] : []))
  const timeline = source?.instance?.timeline ?? 1
  const line = parseTimelineHistory(source?.instance?.history ?? '', timeline)
  const last = good
    .filter((one) => one.major === major && isBackupOn(line, one))
    .toSorted(byFinish)
    .at(-1)
  if (last === undefined) {
    throw new ReplctlError(
      'incremental-unavailable',
      'there is no good backup to build an incremental one on',
      {
        hint: 'Take a full one first: replctl backup',
      },
    )
  }
  return last.id
}
