import type { NodeFacts } from '../cluster/facts.ts'
import { ownedConfigFile } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { lastValues, parseConfigFile } from '../postgres/config-file.ts'
import { quoteLiteral } from '../postgres/sql.ts'
import { readWithIncludes } from './config-includes.ts'
import { readTextFile } from './files.ts'
import type { Node } from './node.ts'
import { sqlEndpointOf } from './survey.ts'

/** One setting as an instance has it, or would have it if it were started. */
export interface LiveSetting {
  readonly value: string
  /** As in pg_settings; null also where the instance is stopped. */
  readonly unit: string | null
  readonly context: string | null
  /** e.g. `configuration file`, `command line`. */
  readonly source: string
  /** It takes one of a list of words, in capitals or not. */
  readonly isEnum?: boolean
  /** It is what stands in replctl.conf now, however the server spells that. */
  readonly isFromOwnFile?: boolean
}

export interface LiveConfiguration {
  readonly settings: Readonly<Record<string, LiveSetting>>
  /** What ALTER SYSTEM wrote: it wins over every other file. */
  readonly autoConf: ReadonlyMap<string, string>
  /** Settings that were given on the server's command line, but not those that say where its files are. */
  readonly commandLine: readonly string[]
  readonly configFile: string
  readonly hbaFile: string
}

/** Reads what an instance has: by SQL where it runs, else from its files and by `postgres -C`. */
export async function readLiveConfiguration(
  node: Node,
  facts: NodeFacts,
  names: readonly string[],
): Promise<LiveConfiguration> {
  const { dataDir } = node.settings.postgres
  const autoText = (await readTextFile(node, `${dataDir}/postgresql.auto.conf`)) ?? ''
  const autoConf = lastValues(parseConfigFile(autoText))
  const read = facts.instance === null ? readStopped : readRunning
  return { autoConf, ...(await read(node, facts, names, autoConf)) }
}

type Read = Omit<LiveConfiguration, 'autoConf'>
type Row = readonly [string | null, string | null, string | null, string | null, boolean, boolean]

const placeSettings = ['config_file', 'data_directory', 'hba_file', 'ident_file', 'external_pid_file']

async function readRunning(node: Node, facts: NodeFacts, names: readonly string[]): Promise<Read> {
  const sql = await node.sql(sqlEndpointOf(node, facts))
  const wanted = [...names, ...placeSettings].map(quoteLiteral).join(', ')
  // Our own session sets a few of them (log_statement): what everybody else has is its reset value.
  const { rows, options } = await sql.json<{ rows: Record<string, Row>; options: string[] }>(
    `SELECT json_build_object('rows', (SELECT json_object_agg(w.name, json_build_array(
         CASE WHEN s.source = 'session' THEN s.reset_val ELSE current_setting(w.name, true) END,
         s.unit, s.context, s.source, coalesce(s.vartype = 'enum', false),
         coalesce(s.sourcefile LIKE '%/${ownedConfigFile}' AND NOT s.pending_restart
           AND pg_conf_load_time() > (pg_stat_file(s.sourcefile, true)).modification, false)))
       FROM unnest(ARRAY[${wanted}]) w(name) LEFT JOIN pg_settings s ON lower(s.name) = w.name),
     'options', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE source = 'command line'))`,
  )
  const known = Object.entries(rows).flatMap(
    ([name, [value, unit, context, source, isEnum, isFromOwnFile]]) =>
      value === null
        ? []
        : [[name, { value, unit, context, source: source ?? 'default', isEnum, isFromOwnFile }] as const],
  )
  const value = (name: string) => rows[name]?.[0] ?? ''
  return {
    settings: Object.fromEntries(known.filter(([name]) => names.includes(name))),
    commandLine: options.filter((name) => !placeSettings.includes(name)),
    configFile: value('config_file'),
    hbaFile: value('hba_file'),
  }
}

/** Settings whose value `postgres -C` prints without the unit that it counts in. */
const unitsOfPlainNumbers: Readonly<Record<string, string>> = {
  wal_keep_size: 'MB',
  max_slot_wal_keep_size: 'MB',
}

const defaultsScript = `
bin=$1 data=$2 config=$3; shift 3
for name; do
  value=$("$bin/postgres" -D "$data" -c "config_file=$config" -C "$name" 2>/dev/null </dev/null) || continue
  printf '%s\\t%s\\n' "$name" "$value"
done
`

async function readStopped(
  node: Node,
  facts: NodeFacts,
  names: readonly string[],
  autoConf: ReadonlyMap<string, string>,
): Promise<Read> {
  const configFile = `${facts.configDirectory}/postgresql.conf`
  const directory = facts.binaries?.directory ?? ''
  const output = await node.output(
    shellScript('ask for the settings of the stopped instance', defaultsScript, [
      ...[directory, node.settings.postgres.dataDir, configFile],
      ...['hba_file', ...names],
    ]),
  )
  const effective = new Map(
    output.split('\n').flatMap((line) => {
      const tab = line.indexOf('\t')
      return tab < 0 ? [] : [[line.slice(0, tab), line.slice(tab + 1)] as const]
    }),
  )
  const own = (await readTextFile(node, `${facts.configDirectory}/replctl.conf`)) ?? ''
  const written = lastValues(parseConfigFile(`${await readWithIncludes(node, configFile)}\n${own}`))
  const settings = names.flatMap((name) => {
    // As it is written it has its unit; what nobody wrote is the default.
    const asWritten = autoConf.get(name) ?? written.get(name)
    const value = asWritten ?? effective.get(name)
    if (value === undefined) return []
    const unit = asWritten === undefined ? (unitsOfPlainNumbers[name] ?? null) : null
    return [[name, { value, unit, context: null, source: 'configuration file' }] as const]
  })
  return {
    settings: Object.fromEntries(settings),
    commandLine: [],
    configFile,
    hbaFile: effective.get('hba_file') ?? `${facts.configDirectory}/pg_hba.conf`,
  }
}

/**
 * What the server itself says of its files as they stand, without being started or told to reload.
 * Null: it would start with them.
 */
export async function checkConfiguration(node: Node, facts: NodeFacts): Promise<string | null> {
  const script = '"$1/postgres" -D "$2" -c "config_file=$3" -C data_directory </dev/null'
  const result = await node.run(
    shellScript('check the configuration files', script, [
      ...[facts.binaries?.directory ?? '', node.settings.postgres.dataDir],
      `${facts.configDirectory}/postgresql.conf`,
    ]),
  )
  return result.status === 0 ? null : result.stderr.trim()
}
