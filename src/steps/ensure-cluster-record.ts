import type { ClusterRecord } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { commonRecord } from '../cluster/record.ts'
import { pending, type Step, satisfied } from '../engine/step.ts'
import { writeStateFile } from './ensure-mark.ts'
import { look } from './look.ts'

export interface RecordWish {
  readonly primary: NodeName
  /** Nodes that are part of the cluster now. */
  readonly members: readonly NodeName[]
}

/** One node's copy of the record of who leads and who belongs to the cluster. The live cluster stays the truth. */
export function ensureClusterRecord(node: NodeName, wish: RecordWish): Step {
  const wanted = async (ctx: Parameters<Step['check']>[0]) => {
    const [own, primary] = await Promise.all([look(ctx), look(ctx, wish.primary)])
    const timeline = primary.instance?.timeline ?? 1
    const systemIdentifier = primary.instance?.systemIdentifier ?? ''
    const newest = commonRecord([own, primary])
    const isSame =
      newest !== null &&
      newest.primary === wish.primary &&
      newest.timeline === timeline &&
      newest.systemIdentifier === systemIdentifier &&
      newest.members.join() === wish.members.join() &&
      (newest.isPrimaryGuarded ?? false) === primary.isStartGuarded
    const record: ClusterRecord = isSame
      ? newest
      : {
          systemIdentifier,
          primary: wish.primary,
          timeline,
          members: wish.members,
          generation: (newest?.generation ?? 0) + 1,
          isPrimaryGuarded: primary.isStartGuarded,
        }
    return { record, isWritten: isSame && own.record?.generation === newest.generation }
  }
  return {
    title: 'record who leads and who belongs to the cluster',
    node,
    check: async (ctx) => {
      const { isWritten } = await wanted(ctx)
      return isWritten ? satisfied('the record is right') : pending('the record is missing or older')
    },
    apply: async (ctx) => {
      const { record } = await wanted(ctx)
      await writeStateFile(ctx, node, 'cluster.json', `${JSON.stringify(record)}\n`)
    },
  }
}
