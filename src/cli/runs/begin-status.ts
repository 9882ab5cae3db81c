import { connectEarly, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'

/** `replctl status`: the hosts are logged into while the rest of it is still being loaded. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    await connectEarly(session)
    const { statusIn } = await import('./status.ts')
    return await statusIn(session, call)
  } finally {
    await session.close()
  }
}
