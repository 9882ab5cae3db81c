import type { NodeSettings } from '../../cluster/inventory.ts'
import type { NodeName } from '../../cluster/names.ts'
import type { NewStandby } from '../../runbooks/add-standby.ts'
import { builtTitle } from '../../steps/ensure-mark.ts'
import { isBegun } from '../../steps/remove-node.ts'
import { canBeMoved, isAside, moveAsideTitle } from '../../steps/replace-data-directory.ts'
import type { ClusterSession } from '../cluster-session.ts'
import { type Observation, requireReachable } from '../operation.ts'

type Reclone = Pick<NewStandby, 'isReclone' | 'isReplacing'>
export type Reclones = ReadonlyMap<NodeName, Reclone>

/**
 * What `--reclone` comes to on each node. What the run that is gone on with has cloned anew, and seen streaming, is not cloned once
 * more: it is a standby like others, beside which the old data may still lie. Taken back, all of it is.
 */
export async function judgeReclones(
  session: Pick<ClusterSession, 'nodes'>,
  observation: Observation,
  targets: readonly NodeSettings[],
  isForward: boolean,
): Promise<Reclones> {
  requireReachable(
    observation.survey,
    targets.map((node) => node.name),
  )
  const judge = async ({ name }: NodeSettings): Promise<readonly [NodeName, Reclone]> => {
    const { isReplacing, isBuilt } = await lookBack(session, observation, name)
    return [name, { isReclone: !(isForward && isBuilt), isReplacing }]
  }
  return new Map(await Promise.all(targets.map(judge)))
}

/**
 * What the run that is gone on with had done on a node. Its journal alone does not tell: a run that failed may have put the old
 * data back, and left the journal as it was.
 */
async function lookBack(
  { nodes }: Pick<ClusterSession, 'nodes'>,
  { survey, resumed }: Observation,
  name: NodeName,
): Promise<{ readonly isReplacing: boolean; readonly isBuilt: boolean }> {
  const facts = survey.find((one) => one.name === name)
  const node = nodes.get(name)
  if (facts === undefined || node === undefined) throw new RangeError(`no connection to node ${name}`)
  const hasBegun = (title: string) => resumed?.begun.includes(`${name}: ${title}`) === true
  const isMarked = facts.mark?.phase === 'done' && facts.mark.inode === facts.dataDirectoryInode
  // Nothing was put back once the old data was being deleted.
  const isOld = async () =>
    resumed?.isFinal !== true && !(await isAside({ node })) && (await canBeMoved({ node }))
  return {
    isReplacing:
      resumed === null
        ? facts.dataDirectoryState === 'instance' && !isBegun(facts)
        : hasBegun(moveAsideTitle),
    isBuilt: hasBegun(builtTitle) && isMarked && !(await isOld()),
  }
}
