import { ReplctlError } from '../../errors.ts'
import type { NodeSettings } from '../../cluster/inventory.ts'
import type { ClusterSession } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
export async function adoptPrimary(_call: Call, _session: ClusterSession, _node: NodeSettings): Promise<Answer> {
  throw new ReplctlError('usage', 'being built')
}
