import { diagnose } from '../../cluster/diagnose.ts'
import { observeTopology } from '../../cluster/topology.ts'
import { exitCodes } from '../../errors.ts'
import { surveyNodes } from '../../node/survey.ts'
import { statusJson, statusText } from '../../report/status.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../operation.ts'

/** `replctl status`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const { inventory } = session
    const topology = observeTopology(inventory, await surveyNodes([...session.nodes.values()]))
    const problems = diagnose(inventory, topology)
    return {
      exitCode: problems.some((problem) => problem.severity === 'error') ? exitCodes.unhealthy : exitCodes.ok,
      changed: false,
      cluster: inventory.cluster,
      result: statusJson(inventory, topology),
      problems,
      text: statusText(inventory, topology, problems, paintOf(call, 'out')),
    }
  } finally {
    await session.close()
  }
}
