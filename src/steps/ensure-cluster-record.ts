import type { ClusterRecord, InstanceFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { commonRecord } from '../cluster/record.ts'
import { pending, type Step, satisfied } from '../engine/step.ts'
import { parseSynchronousStandbyNames } from '../postgres/synchronous-standby-names.ts'
import { writeStateFile } from './ensure-mark.ts'
import { look } from './look.ts'

export interface RecordWish {
  readonly primary: NodeName
  /** Nodes that are part of the cluster now. */
  readonly members: readonly NodeName[]
  /** It has at least this generation: so that it wins over records that lie on other nodes. */
  readonly generation?: number | undefined
}

function confirmationsOf(primary: InstanceFacts | null): number | undefined {
  const names = primary?.settings.synchronous_standby_names?.value
  return names === undefined ? undefined : (parseSynchronousStandbyNames(names)?.count ?? 0)
}

/** One node's copy of the record of who leads and who belongs to the cluster. The live cluster stays the truth. */
export function ensureClusterRecord(node: NodeName, wish: RecordWish): Step {
  let checked: ClusterRecord | null = null
  const wanted = async (ctx: Parameters<Step['check']>[0]) => {
    // Who led may be gone: then what is on record of it stays.
    const [own, primary] = await Promise.all([look(ctx), look(ctx, wish.primary).catch(() => null)])
    const newest = commonRecord(primary === null ? [own] : [own, primary])
    const leads = primary?.instance?.isInRecovery === false ? primary.instance : null
    const timeline = leads?.timeline ?? newest?.timeline ?? own.instance?.timeline ?? 1
    const systemIdentifier =
      leads?.systemIdentifier ?? newest?.systemIdentifier ?? own.instance?.systemIdentifier ?? ''
    const isPrimaryGuarded = primary?.isStartGuarded ?? newest?.isPrimaryGuarded ?? false
    const confirmations = confirmationsOf(leads) ?? newest?.confirmations ?? 0
    const isSame =
      newest !== null &&
      newest.generation >= (wish.generation ?? 0) &&
      newest.primary === wish.primary &&
      newest.timeline === timeline &&
      newest.systemIdentifier === systemIdentifier &&
      newest.members.join() === wish.members.join() &&
      (newest.isPrimaryGuarded ?? false) === isPrimaryGuarded &&
      (newest.confirmations ?? 0) === confirmations
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
        }
    return { record, isWritten: isSame && own.record?.generation === newest.generation }
  }
  return {
    title: 'record who leads and who belongs to the cluster',
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
