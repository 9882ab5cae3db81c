import { diagnose } from '../../cluster/diagnose.ts'
import { observeTopology } from '../../cluster/topology.ts'
import { exitCodes } from '../../errors.ts'
import { askAround } from '../../node/ask-around.ts'
import { surveyNodes } from '../../node/survey.ts'
import { archiveLine } from '../../report/archive.ts'
import { statusJson, statusText } from '../../report/status.ts'
import { beginToReachArchive, lookAtArchive } from '../archive-access.ts'
import type { ClusterSession } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../paint-of.ts'

/** `replctl status`. */
export async function statusIn(session: ClusterSession, call: Call): Promise<Answer> {
  const { inventory } = session
  const connected = beginToReachArchive(session)
  const survey = await surveyNodes([...session.nodes.values()], 'room')
  // One that cannot be reached from here may lead: alone, or beside the one that is seen to. It takes no time where all answer.
  const topology = observeTopology(inventory, await askAround(inventory, session.nodes, survey))
  const archive = await lookAtArchive(session, survey, topology, connected)
  const problems = [...diagnose(inventory, topology), ...archive.problems]
  const paint = paintOf(call, 'out')
  return {
    exitCode: problems.some((problem) => problem.severity === 'error') ? exitCodes.unhealthy : exitCodes.ok,
    changed: false,
    cluster: inventory.cluster,
    result: { ...statusJson(inventory, topology), archive: archive.state },
    problems,
    text: statusText(inventory, topology, problems, paint, archiveLine(archive.state, paint)),
  }
}
