import type { Archiver } from '../../cluster/facts.ts'
import { type ArchiveExpectation, judgeArchive } from '../../cluster/judge-archive.ts'
import { problemOf } from '../../cluster/problem.ts'
import { observeTopology } from '../../cluster/topology.ts'
import { exitCodes, ReplctlError } from '../../errors.ts'
import { archiveAge } from '../../node/archive-note.ts'
import { readArchive } from '../../node/read-archive.ts'
import { surveyNodes } from '../../node/survey.ts'
import { archiveCheckJson, archiveCheckText } from '../../report/archive.ts'
import { problemsText } from '../../report/problems.ts'
import { archivedIdentifier } from '../archive-access.ts'
import { openArchive, unreachableNodes } from '../archive-session.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../operation.ts'

/** What the server archived last; null where that was before this archive, by another command or into another one. */
function lastOf(archiver: Archiver | null, ageSeconds: number | null): string | null {
  const isOlder = ageSeconds !== null && (archiver?.lastArchivedSeconds ?? 0) >= ageSeconds
  return isOlder ? null : (archiver?.lastArchivedWal ?? null)
}

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
    const age = await archiveAge(host, { dir: settings.dir, systemIdentifier })
    const instance = survey.find((facts) => facts.name === primary)?.instance ?? null
    const expected: ArchiveExpectation | null =
      instance === null
        ? null
        : {
            timeline: instance.timeline,
            segmentSizeBytes: Number(instance.settings.wal_segment_size?.value ?? 0) || null,
            lastArchived: settings.mode === 'push' ? lastOf(instance.archiver, age) : null,
            history: instance.history,
          }
    const content = await readArchive(
      host,
      { dir: settings.dir, systemIdentifier },
      { isDeep: call.options.deep === true, segmentSizeBytes: expected?.segmentSizeBytes ?? undefined },
    ).catch((thrown: unknown) => {
      if (thrown instanceof ReplctlError && thrown.code === 'archive-failing') return thrown
      throw thrown
    })
    if (content instanceof ReplctlError) {
      const problems = [problemOf(content), ...unreachableNodes(survey)]
      return {
        exitCode: exitCodes.unhealthy,
        changed: false,
        cluster: inventory.cluster,
        result: null,
        problems,
        text: problemsText(problems, paintOf(call, 'out')),
      }
    }
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
