import { archiveHost, type NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { refused, type Step, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import type { Node } from '../node/node.ts'
import { capabilitiesOf, parsePostgresVersion } from '../postgres/versions.ts'
import { ask, majorOf } from './look.ts'

/** What a host offers for base backups. */
export interface BackupPrograms {
  readonly home: string
  /** Folder of pg_basebackup and its like; null where none is new enough. */
  readonly directory: string | null
  readonly major: number
  /** Programs of that folder, e.g. `pg_verifybackup`, `pg_waldump`. */
  readonly names: readonly string[]
  /** Of gzip, lz4 and zstd. */
  readonly packers: readonly string[]
  /** Every pg_basebackup that was found, e.g. `15.18 in /usr/lib/postgresql/15/bin`. */
  readonly found: readonly string[]
}

const programsScript = `
printf 'home %s\\n' "$HOME"
for name in gzip lz4 zstd; do command -v $name >/dev/null 2>&1 && echo "packer $name"; done
seen=:
for dir in "$1" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /opt/homebrew/opt/libpq/bin \\
    /usr/local/opt/postgresql*/bin /usr/local/pgsql/bin /usr/lib/postgresql*/bin $(printf '%s' "$PATH" | tr : ' '); do
  case $seen in *":$dir:"*) continue ;; esac
  seen="$seen$dir:"
  [ -n "$dir" ] && [ -x "$dir/pg_basebackup" ] || continue
  printf 'version %s\\t%s\\n' "$dir" "$("$dir/pg_basebackup" --version 2>/dev/null)"
  for name in pg_verifybackup pg_waldump pg_combinebackup pg_amcheck pg_dumpall pg_receivewal; do
    [ -x "$dir/$name" ] && printf 'program %s\\t%s\\n' "$dir" "$name"
  done
done
:
`

/**
 * The programs that fit a server of this major version: its own where they are there, else newer ones. A newer
 * pg_basebackup serves an older server, never the other way round.
 */
export async function findBackupPrograms(node: Node, serverMajor: number): Promise<BackupPrograms> {
  const { binDir } = node.settings.postgres
  const output = await node.output(
    shellScript('look for the programs of base backups', programsScript, [binDir ?? '']),
  )
  return readBackupPrograms(output, serverMajor)
}

/** Reads what {@link programsScript} printed. */
export function readBackupPrograms(output: string, serverMajor: number): BackupPrograms {
  const lines = (name: string) =>
    output.split('\n').flatMap((line) => (line.startsWith(`${name} `) ? [line.slice(name.length + 1)] : []))
  const found = lines('version').flatMap((line) => {
    const [directory = '', text = ''] = line.split('\t')
    // Debian's wrapper in PATH prints a version, but leads to whatever it likes.
    if (!/^pg_basebackup \(PostgreSQL\) \d/.test(text) || directory === '/usr/bin') return []
    const version = parsePostgresVersion(text)
    return [{ directory, major: version.major, version: version.text }]
  })
  const [best] = found.filter((one) => one.major >= serverMajor).toSorted((a, b) => a.major - b.major)
  return {
    home: lines('home')[0] ?? '',
    directory: best?.directory ?? null,
    major: best?.major ?? 0,
    names: lines('program').flatMap((line) => {
      const [directory, name = ''] = line.split('\t')
      return directory === best?.directory ? [name] : []
    }),
    packers: lines('packer'),
    found: found.map((one) => `${one.version} in ${one.directory}`),
  }
}

/** Of the programs that a backup of this server needs, those that the host lacks in a version that will do. */
export function missingPrograms(
  programs: BackupPrograms,
  serverMajor: number,
  needed: readonly string[],
): readonly string[] {
  const isTooNew = capabilitiesOf(serverMajor).manifestNamesSystem && programs.major !== serverMajor
  return needed.filter((name) => isTooNew || !programs.names.includes(name))
}

/** The archive host has what a base backup of this source needs. */
export function requireBackupPrograms(source: NodeName, needed: readonly string[]): Step {
  return {
    title: `require pg_basebackup for the version of ${source}, and what proves its result`,
    node: archiveHost,
    check: async (ctx) => {
      const major = majorOf((await ask(ctx, source)).facts)
      const programs = await findBackupPrograms(ctx.node, major)
      const missing = missingPrograms(programs, major, needed)
      if (programs.directory !== null && missing.length === 0) {
        return satisfied(`PostgreSQL ${programs.major} in ${programs.directory}`)
      }
      const has = programs.found.length === 0 ? 'none' : programs.found.join(', ')
      return refused(
        new ReplctlError(
          'binaries-missing',
          programs.directory === null
            ? `the archive host has no pg_basebackup for PostgreSQL ${major}`
            : `the archive host lacks ${missing.join(', ')} for PostgreSQL ${major}`,
          {
            detail: `${source} runs PostgreSQL ${major}; pg_basebackup on ${ctx.node.settings.host}: ${has}.`,
            hint: `Install the programs of PostgreSQL ${major} there, on Debian: apt-get install postgresql-client-${major}`,
            node: ctx.node.name,
          },
        ),
      )
    },
  }
}
