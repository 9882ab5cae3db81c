import { judgeArchiving } from '../../cluster/judge-archiving.ts'
import { problemOf } from '../../cluster/problem.ts'
import { observeTopology } from '../../cluster/topology.ts'
import { exitCodes } from '../../errors.ts'
import { surveyNodes } from '../../node/survey.ts'
import { archiveStatusText } from '../../report/archive.ts'
import { lookAtArchive } from '../archive-access.ts'
import { openArchive, unreachableNodes } from '../archive-session.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../operation.ts'

/** `replctl archive status`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const { inventory } = session
    const [, survey] = await Promise.all([
      openArchive(session),
      surveyNodes([...session.nodes.values()], 'brief'),
    ])
    const topology = observeTopology(inventory, survey)
    const { state, problems: onHost } = await lookAtArchive(session, survey, topology, undefined)
    const primary = survey.find((facts) => facts.name === topology.primary)
    const onPrimary =
      primary === undefined ? [] : judgeArchiving(inventory, primary).map((one) => problemOf(...one))
    const problems = [...onPrimary, ...onHost, ...unreachableNodes(survey)]
    return {
      exitCode: problems.some((problem) => problem.severity === 'error') ? exitCodes.unhealthy : exitCodes.ok,
      changed: false,
      cluster: inventory.cluster,
      result: state,
      problems,
      text: state === null ? '' : archiveStatusText(state, problems, paintOf(call, 'out')),
    }
  } finally {
    await session.close()
  }
}
