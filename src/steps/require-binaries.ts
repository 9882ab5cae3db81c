import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { supportedMajorVersions } from '../postgres/versions.ts'
import { binDirectoryOf, look, majorOf } from './look.ts'

const serverPrograms = ['postgres', 'initdb', 'pg_ctl']
const standbyPrograms = [...serverPrograms, 'pg_basebackup', 'psql']

/** The programs of a version that replctl knows are there. */
export function requireBinaries(node: NodeName, wantedMajor: number | undefined): Step {
  return {
    title: 'require the programs of PostgreSQL',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const error = versionRefusal(facts, wantedMajor) ?? (await missingPrograms(ctx, facts, serverPrograms))
      return error === null
        ? satisfied(`PostgreSQL ${facts.binaries?.version} in ${facts.binaries?.directory}`)
        : refused(error)
    },
  }
}

/** The standby has programs of the primary's major version; an older minor version is a warning. */
export function requireSameMajorVersion(standby: NodeName, of: NodeName): Step {
  return {
    title: `require the programs of the same major version as on ${of}`,
    node: standby,
    check: async (ctx) => {
      const [facts, source] = await Promise.all([look(ctx), look(ctx, of)])
      const major = majorOf(source)
      const own = suitableBinaries(facts, major)
      if (own === null) return refused(majorMismatch(facts, source, major))
      const missing = await missingPrograms(ctx, { ...facts, binaries: own }, standbyPrograms)
      if (missing !== null) return refused(missing)
      const sourceMinor = source.binaries?.minor ?? 0
      if (own.minor < sourceMinor) {
        ctx.warn(
          new ReplctlError('minor-version-older', `${standby} has an older minor version than ${of}`, {
            detail: `${standby} has ${own.version}, ${of} has ${source.binaries?.version}.`,
            hint: `Update PostgreSQL on ${standby}; standbys are to be updated first.`,
            node: standby,
          }),
        )
      }
      return satisfied(`PostgreSQL ${own.version} in ${own.directory}`)
    },
  }
}

/** The programs on a host that fit this major version, the newest minor first. */
export function suitableBinaries(facts: NodeFacts, major: number): NodeFacts['binaries'] {
  return facts.installed.filter((one) => one.major === major).toSorted((a, b) => b.minor - a.minor)[0] ?? null
}

function versionRefusal(facts: NodeFacts, wantedMajor: number | undefined): ReplctlError | null {
  binDirectoryOf(facts)
  const major = majorOf(facts)
  const [oldest] = supportedMajorVersions
  if (wantedMajor !== undefined && major !== wantedMajor) {
    return new ReplctlError('version-mismatch', `${facts.name} has PostgreSQL ${major}, not ${wantedMajor}`, {
      detail: `The inventory says version ${wantedMajor}; found: ${describeInstalled(facts)}.`,
      hint: `Install PostgreSQL ${wantedMajor} there, or correct postgres.version.`,
      node: facts.name,
    })
  }
  return major >= oldest
    ? null
    : new ReplctlError('version-mismatch', `PostgreSQL ${major} on ${facts.name} is too old`, {
        detail: `replctl knows PostgreSQL ${oldest} and newer.`,
        node: facts.name,
      })
}

async function missingPrograms(
  ctx: StepContext,
  facts: NodeFacts,
  names: readonly string[],
): Promise<ReplctlError | null> {
  const directory = binDirectoryOf(facts)
  const script = 'dir=$1; shift; for name; do [ -x "$dir/$name" ] || printf "%s " "$name"; done'
  const missing = (
    await ctx.node.output(shellScript('look for programs', script, [directory, ...names]))
  ).trim()
  if (missing === '') return null
  return new ReplctlError('binaries-missing', `${facts.name} lacks ${missing.split(' ').join(', ')}`, {
    detail: `They are not in ${directory}.`,
    hint: `Install the client and server packages of PostgreSQL ${facts.binaries?.major} there.`,
    node: facts.name,
  })
}

function majorMismatch(facts: NodeFacts, source: NodeFacts, major: number): ReplctlError {
  return new ReplctlError('version-mismatch', `${facts.name} has no programs of PostgreSQL ${major}`, {
    detail: `${source.name} runs PostgreSQL ${major}; on ${facts.name} there is: ${describeInstalled(facts)}.`,
    hint: `Install PostgreSQL ${major} on ${facts.name}, or set its bin_dir in the inventory.`,
    node: facts.name,
  })
}

function describeInstalled(facts: NodeFacts): string {
  return facts.installed.map((one) => `${one.version} in ${one.directory}`).join(', ') || 'none'
}
