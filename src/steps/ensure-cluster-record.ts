import type { ClusterRecord, InstanceFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { synchronousNamesFor } from '../cluster/node-configuration.ts'
import { commonRecord } from '../cluster/record.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { compareLsn } from '../postgres/lsn.ts'
import {
  type ParsedSynchronousStandbys,
  parseSynchronousStandbyNames,
} from '../postgres/synchronous-standby-names.ts'
import type { ClusterInput } from './cluster-input.ts'
import { writeStateFile } from './ensure-mark.ts'
import { look } from './look.ts'

export interface RecordWish {
  readonly primary: NodeName
  /** Nodes that are part of the cluster now. */
  readonly members: readonly NodeName[]
  /** It has at least this generation: so that it wins over records that lie on other nodes. */
  readonly generation?: number | undefined
  /** application_name of one that was taken out: whatever it confirmed is the operator's to give up. */
  readonly without?: string
  /** Slot of one that was taken out: from now on it is nobody's, wherever one of that name is left. */
  readonly removedSlot?: string
}

/** One node's copy of the record of who leads and who belongs to the cluster. The live cluster stays the truth. */
export function ensureClusterRecord(node: NodeName, wish: RecordWish): Step {
  const wanted = async (ctx: StepContext) => {
    const { own, primary, newest } = await recordsNow(ctx, wish.primary)
    const leads = primary?.instance?.isInRecovery === false ? primary.instance : null
    const timeline = leads?.timeline ?? newest?.timeline ?? own.instance?.timeline ?? 1
    const systemIdentifier =
      leads?.systemIdentifier ?? newest?.systemIdentifier ?? own.instance?.systemIdentifier ?? ''
    const isPrimaryGuarded = primary?.isStartGuarded ?? newest?.isPrimaryGuarded ?? false
    const waited = waitedFor(leads)
    const confirmations = waited?.count ?? newest?.confirmations ?? 0
    const confirmers = confirmersNow(leads, newest, { ...wish, timeline })
    const removedSlots = asSet([
      ...(newest?.systemIdentifier === systemIdentifier ? (newest.removedSlots ?? []) : []),
      ...(wish.removedSlot === undefined ? [] : [wish.removedSlot]),
    ])
    const isSame =
      newest !== null &&
      newest.generation >= (wish.generation ?? 0) &&
      newest.primary === wish.primary &&
      newest.timeline === timeline &&
      newest.systemIdentifier === systemIdentifier &&
      newest.members.join() === wish.members.join() &&
      (newest.isPrimaryGuarded ?? false) === isPrimaryGuarded &&
      (newest.confirmations ?? 0) === confirmations &&
      JSON.stringify(newest.confirmers ?? []) === JSON.stringify(confirmers ?? []) &&
      (newest.removedSlots ?? []).join() === removedSlots.join()
    const record: ClusterRecord = isSame
      ? newest
      : {
          systemIdentifier,
          primary: wish.primary,
          timeline,
          members: wish.members,
          generation: Math.max((newest?.generation ?? 0) + 1, wish.generation ?? 0),
          isPrimaryGuarded,
          confirmations,
          ...(confirmers === undefined ? {} : { confirmers }),
          ...(removedSlots.length === 0 ? {} : { removedSlots }),
        }
    return { record, isWritten: isSame && own.record?.generation === newest.generation }
  }
  return writing(node, 'record who leads and who belongs to the cluster', wanted)
}

/**
 * Before commits may wait for a standby, the record says so on every node that runs: a failover that finds that standby away
 * must know that it may hold what nobody else has. Taken from the record again only once others hold all of it.
 */
export function announceConfirming(
  nodes: readonly NodeName[],
  primary: NodeName,
  { inventory }: ClusterInput,
  confirming: readonly NodeName[],
): Step[] {
  const toCome = parseSynchronousStandbyNames(synchronousNamesFor(inventory, primary, confirming))
  if (toCome === null) return []
  const wanted = async (ctx: StepContext) => {
    const { own, newest } = await recordsNow(ctx, primary)
    // A record without names, or of another's time, leaves nobody out by them.
    if (newest?.primary !== primary || newest.confirmers === undefined)
      return { record: newest, isWritten: true }
    const confirmers = asSet([...newest.confirmers, ...toCome.names])
    const confirmations = Math.min(newest.confirmations || toCome.count, toCome.count)
    const isSame =
      confirmers.length === newest.confirmers.length && confirmations === (newest.confirmations ?? 0)
    const record = isSame
      ? newest
      : { ...newest, confirmers, confirmations, generation: newest.generation + 1 }
    return { record, isWritten: isSame && own.record?.generation === newest.generation }
  }
  return nodes.map((node) => writing(node, 'record who may confirm commits from now on', wanted))
}

interface Wanted {
  readonly record: ClusterRecord | null
  readonly isWritten: boolean
}

function writing(node: NodeName, title: string, wanted: (ctx: StepContext) => Promise<Wanted>): Step {
  let checked: ClusterRecord | null = null
  return {
    title,
    node,
    showsOnlyOnItsNode: true,
    check: async (ctx) => {
      const { record, isWritten } = await wanted(ctx)
      checked = record
      return isWritten ? satisfied('the record is right') : pending('the record is missing or older')
    },
    apply: async (ctx) => {
      // Written under the lock, and to every node alike: what the check saw is new enough.
      const record = checked ?? (await wanted(ctx)).record
      await writeStateFile(ctx, node, 'cluster.json', `${JSON.stringify(record)}\n`)
    },
    // It was read back where it was written.
    verify: async () => undefined,
  }
}

async function recordsNow(ctx: StepContext, leader: NodeName) {
  // Who led may be gone: then what is on record of it stays.
  const [own, primary] = await Promise.all([look(ctx), look(ctx, leader).catch(() => null)])
  return { own, primary, newest: commonRecord(primary === null ? [own] : [own, primary]) }
}

/** Null: for nobody. Undefined: it is not known. */
function waitedFor(leads: InstanceFacts | null): { names: readonly string[]; count: number } | undefined {
  const names = leads?.settings.synchronous_standby_names?.value
  return names === undefined ? undefined : (parseSynchronousStandbyNames(names) ?? { names: [], count: 0 })
}

/**
 * Who may have confirmed a commit that nobody else has: those that are waited for, and those that were, under the same primary,
 * until the others have everything.
 */
function confirmersNow(
  leads: InstanceFacts | null,
  newest: ClusterRecord | null,
  { primary, timeline, without }: RecordWish & { readonly timeline: number },
): readonly string[] | undefined {
  const isSameReign = newest?.primary === primary && newest.timeline === timeline
  const before = isSameReign ? newest.confirmers?.filter((name) => name !== without) : undefined
  const waited = waitedFor(leads)
  if (leads === null || waited === undefined) return before
  return asSet(haveAll(leads, waited) ? waited.names : [...waited.names, ...(before ?? [])])
}

const asSet = (names: readonly string[]): readonly string[] => [...new Set(names)].toSorted()

/** Whether so many of those that are waited for hold all that the primary has written. */
function haveAll(
  { replication, currentLsn }: InstanceFacts,
  { names, count }: Pick<ParsedSynchronousStandbys, 'names' | 'count'>,
): boolean {
  const holding = replication.filter(
    ({ applicationName, flushLsn }) =>
      names.includes(applicationName) &&
      currentLsn !== null &&
      flushLsn !== null &&
      compareLsn(flushLsn, currentLsn) >= 0,
  )
  return holding.length >= count
}
