import { existsSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ReplctlError } from '../errors.ts'

/**
 * The package's folder: the nearest one above this file with a package.json, be it in src/ or bundled in dist/.
 * @throws {ReplctlError} `template-invalid` if the package is not complete
 */
export function packageRoot(): string {
  let folder: string = import.meta.dirname
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder)
    if (parent === folder) throw incompletePackage('package.json')
    folder = parent
  }
  return folder
}

/** Version of replctl, e.g. `0.1.0`. */
export function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
    version: string
  }
  return version
}

/**
 * Reads a file of the package's templates/ folder, e.g. `pg_hba.conf.liquid`.
 * @throws {ReplctlError} `template-invalid` if it is not there
 */
export async function loadTemplate(name: string): Promise<string> {
  try {
    return await readFile(join(packageRoot(), 'templates', name), 'utf8')
  } catch (thrown) {
    if (thrown instanceof ReplctlError) throw thrown
    throw incompletePackage(`templates/${name}`, thrown)
  }
}

function incompletePackage(file: string, cause?: unknown): ReplctlError {
  return new ReplctlError('template-invalid', `could not read ${file} of the replctl package`, {
    hint: 'Install replctl again.',
    cause,
  })
}
