import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { supportedMajorVersions } from '../../../src/postgres/versions.ts'

const folder = new URL('../../fixtures/', import.meta.url)

/** The text of a captured file, e.g. `pg15/controldata-promoted.txt`; test/fixtures/capture.mjs made it. */
export function fixture(name: string): string {
  return readFileSync(new URL(name, folder), 'utf8')
}

export function jsonFixture<Value>(name: string): Value {
  return JSON.parse(fixture(name)) as Value
}

/** The major versions from which this file was captured; not every build has every program. */
export function majorsWith(name: string): readonly number[] {
  return supportedMajorVersions.filter((major) =>
    existsSync(fileURLToPath(new URL(`pg${major}/${name}`, folder))),
  )
}

/** The text of a template of the package, e.g. `standby.conf`. */
export function template(name: string): string {
  return readFileSync(new URL(`../../../templates/${name}`, import.meta.url), 'utf8')
}
