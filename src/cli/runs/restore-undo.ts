import { type NodeName, nodeName } from '../../cluster/names.ts'
import type { Journal } from '../../engine/journal.ts'
import type { Node } from '../../node/node.ts'
import { takeBackRestore } from '../../runbooks/restore.ts'
import { fenceTitle } from '../../steps/fence-instance.ts'
import { type Restore, readRestoreRecord } from '../../steps/restore-record.ts'
import { archiveOf } from '../archive-session.ts'
import type { ClusterSession } from '../cluster-session.ts'
import type { Decision, Observation } from '../operation.ts'

/**
 * Taking a restore back needs its node and what is written down there: neither the archive, nor a backup that may be gone by
 * now, nor the old primary's consent, which may be back.
 */
export async function undoRestore(
  session: Pick<ClusterSession, 'inventory' | 'templates' | 'hosts'>,
  { resumed }: Observation,
  begun: Pick<Restore, 'node' | 'target' | 'isMember'>,
  on: Node,
): Promise<Decision> {
  const { inventory, templates } = session
  const record = await readRestoreRecord(on)
  const restore = {
    ...begun,
    ...{ archive: archiveOf(session).settings, at: on.name },
    // No step that is taken back reads more of the choice.
    choice: { backup: { id: record?.backup ?? '' }, timeline: record?.timeline ?? 0 },
  } as Restore
  const isKnown = (name: NodeName) => inventory.nodes.some((node) => node.name === name)
  const fenced = fencedFor(resumed, begun.node.name).filter(isKnown)
  return { plan: takeBackRestore({ inventory, templates }, restore, fenced) }
}

/** Nodes that it had begun to fence, by its journal. */
export function fencedFor(journal: Journal | null, node: NodeName): readonly NodeName[] {
  const end = `: ${fenceTitle(node)}`
  return (journal?.begun ?? [])
    .filter((key) => key.endsWith(end))
    .map((key) => nodeName(key.slice(0, -end.length)))
}
