import { connectEarly, findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'

/**
 * `replctl promote`: what is wrong with the call is said before any host is contacted; then the hosts are logged into
 * while what a promotion needs is still being loaded.
 */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    if (call.args[0] !== undefined) findNode(session.inventory, call.args[0] as string)
    await connectEarly(session)
    const { promoteIn } = await import('./promote.ts')
    return await promoteIn(session, call)
  } finally {
    await session.close()
  }
}
