import { type ArchiveExpectation, judgeArchive } from '../../cluster/judge-archive.ts'
import { observeTopology } from '../../cluster/topology.ts'
import { exitCodes } from '../../errors.ts'
import { readArchive } from '../../node/read-archive.ts'
import { surveyNodes } from '../../node/survey.ts'
import { archiveCheckJson, archiveCheckText } from '../../report/archive.ts'
import { archivedIdentifier } from '../archive-access.ts'
import { openArchive, unreachableNodes } from '../archive-session.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../operation.ts'

/** `replctl archive check [--deep]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const { inventory } = session
    const [{ settings, host }, survey] = await Promise.all([
      openArchive(session),
      surveyNodes([...session.nodes.values()], 'brief'),
    ])
    const { primary } = observeTopology(inventory, survey)
    const systemIdentifier = await archivedIdentifier(survey, host, settings.dir)
    const instance = survey.find((facts) => facts.name === primary)?.instance ?? null
    const expected: ArchiveExpectation | null =
      instance === null
        ? null
        : {
            timeline: instance.timeline,
            lastArchived: instance.archiver?.lastArchivedWal ?? null,
            history: instance.history,
          }
    const content = await readArchive(
      host,
      { dir: settings.dir, systemIdentifier },
      { isDeep: call.options.deep === true },
    )
    const verdict = judgeArchive(content, expected, Date.now() / 1000)
    const isHealthy = !verdict.problems.some((problem) => problem.severity === 'error')
    return {
      exitCode: isHealthy ? exitCodes.ok : exitCodes.unhealthy,
      changed: false,
      cluster: inventory.cluster,
      result: archiveCheckJson(content, verdict),
      problems: [...verdict.problems, ...unreachableNodes(survey)],
      text: archiveCheckText(content, verdict, paintOf(call, 'out')),
    }
  } finally {
    await session.close()
  }
}
