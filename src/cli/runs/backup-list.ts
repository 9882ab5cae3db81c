import { judgeBackups } from '../../cluster/backup-catalog.ts'
import { exitCodes } from '../../errors.ts'
import { backupsText, listedBackup } from '../../report/backups.ts'
import { catalogsOf, openArchive, surveyForArchive, unreachableNodes } from '../archive-session.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../operation.ts'

/** `replctl backup list`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const archive = await openArchive(session)
    const survey = await surveyForArchive(session)
    const catalogs = await catalogsOf(session, archive, survey)
    const backups = catalogs
      .flatMap((catalog) => judgeBackups(catalog).map(listedBackup))
      .toSorted((a, b) => (a.id < b.id ? -1 : 1))
    const unfinished = catalogs.flatMap(({ incoming }) => incoming.map(({ id }) => id))
    return {
      exitCode: exitCodes.ok,
      changed: false,
      cluster: session.inventory.cluster,
      result: { backups, unfinished },
      problems: unreachableNodes(survey),
      text: backupsText(backups, unfinished, paintOf(call, 'out')),
    }
  } finally {
    await session.close()
  }
}
