import { access, constants, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type Problem, problemOf } from '../cluster/problem.ts'
import { ReplctlError } from '../errors.ts'

/**
 * Before any host is asked: a report can be written to this file. `tryAccess`: for tests, as fs.access.
 * @throws {ReplctlError} `usage`
 */
export async function requireReportPlace(
  path: string,
  tryAccess: (path: string, mode: number) => Promise<void> = access,
): Promise<void> {
  const found = await stat(path).catch(() => null)
  if (found?.isDirectory() === true) throw cannotWrite(path, 'It is a folder.')
  const folder = await stat(dirname(path)).catch(() => null)
  if (folder?.isDirectory() !== true) throw cannotWrite(path, 'There is no such folder.')
  try {
    await tryAccess(found === null ? dirname(path) : path, constants.W_OK)
  } catch (thrown) {
    throw cannotWrite(path, `The system says ${(thrown as NodeJS.ErrnoException).code}.`)
  }
}

function cannotWrite(path: string, detail: string): ReplctlError {
  return new ReplctlError('usage', `--junit: cannot write ${path}`, {
    detail,
    hint: 'Name a file in a folder that you may write to.',
  })
}

/** Writes it. What was proved stays proved where that fails (a full disk): a problem then says so. */
export async function writeReport(path: string, xml: string): Promise<readonly Problem[]> {
  try {
    await writeFile(path, xml)
    return []
  } catch (thrown) {
    const error = new ReplctlError('report-not-written', `could not write ${path}`, {
      detail: `The system says ${(thrown as NodeJS.ErrnoException).code}.`,
      hint: 'The result itself is not touched by that.',
      cause: thrown,
    })
    return [problemOf(error, 'warning')]
  }
}
