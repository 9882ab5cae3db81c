import type { NodeFacts } from '../cluster/facts.ts'
import {
  type AdoptionVerdict,
  judgeAdoption,
  slotsAtRisk,
  wishedSettings,
} from '../cluster/judge-adoption.ts'
import type { NodeName } from '../cluster/names.ts'
import { neededSettings, nodeHbaLines, ownedConfigFile } from '../cluster/node-configuration.ts'
import { readTextFile } from '../node/files.ts'
import { readLiveConfiguration } from '../node/live-settings.ts'
import type { Node } from '../node/node.ts'
import { serviceOf } from '../node/service.ts'
import { ensureLastInclude, includeMarker, lastValues, parseConfigFile } from '../postgres/config-file.ts'
import { ensureManagedBlock } from '../postgres/hba.ts'
import { sufficientSettings } from '../postgres/kept-settings.ts'
import type { ConnectionLimits } from '../postgres/owned-settings.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { archiveCommandOf } from './archive-wish.ts'
import type { ClusterInput } from './cluster-input.ts'
import { binDirectoryOf, majorOf } from './look.ts'

/** What an instance is taken over for; the standbys are those that the cluster has already, where this is run again. */
export interface AdoptionWish extends ClusterInput {
  readonly standbys: readonly NodeName[]
}

/** Lines that come into a file of the operator's. */
export interface AddedLines {
  readonly file: string
  readonly lines: readonly string[]
}

/** Everything that taking an instance over would change in it, and what stays. */
export interface AdoptionAssessment extends AdoptionVerdict {
  /** What it has and keeps, although replctl would set something else. */
  readonly kept: ReadonlyMap<string, string>
  readonly configFile: string
  readonly hbaFile: string
  readonly added: readonly AddedLines[]
}

/** Looks at an instance that is to be taken over: what it has, what it needs. Reads only; it may be stopped. */
export async function assessAdoption(
  node: Node,
  facts: NodeFacts,
  { inventory, templates, standbys }: AdoptionWish,
): Promise<AdoptionAssessment> {
  const { parameters } = node.settings.postgres
  const needed = neededSettings({
    inventory,
    node: node.settings,
    major: majorOf(facts),
    home: facts.home,
    standbys,
    socketDirectory: parameters.unix_socket_directories,
    archiveCommand: archiveCommandOf(inventory, node.settings, facts),
    connectionLimits: await connectionLimitsOf(node, facts),
  })
  const live = await readLiveConfiguration(node, facts, [...needed.keys(), 'data_checksums'])
  const settings = { ...live.settings, ...checksumsOf(facts) }
  const wished = wishedSettings(parameters, inventory.replication.mode)
  const ownText = await readTextFile(node, `${facts.configDirectory}/${ownedConfigFile}`)
  const verdict = judgeAdoption({
    node: node.name,
    isRunning: facts.instance !== null,
    settings,
    autoConf: live.autoConf,
    commandLine: live.commandLine,
    needed,
    wished,
    written: lastValues(parseConfigFile(ownText ?? '')),
    restartLosesOptions: serviceOf(node, facts, binDirectoryOf(facts)).name === 'pg_ctl',
  })
  const values = Object.fromEntries(Object.entries(settings).map(([name, one]) => [name, one.value]))
  const [mainText, hbaText] = await Promise.all([
    readTextFile(node, `${facts.configDirectory}/postgresql.conf`),
    readTextFile(node, live.hbaFile),
  ])
  const hbaLines = nodeHbaLines({ inventory, node: node.settings, templates, major: majorOf(facts) })
  const isIncluded = ensureLastInclude(mainText ?? '', ownedConfigFile) === mainText
  const hasBlock = ensureManagedBlock(hbaText ?? '', hbaLines, inventory.cluster) === hbaText
  return {
    ...verdict,
    refusal: verdict.refusal ?? slotsAtRisk(facts, verdict.changes),
    kept: sufficientSettings(values, needed, wished),
    configFile: live.configFile,
    hbaFile: live.hbaFile,
    added: [
      ...(isIncluded
        ? []
        : [
            {
              file: `${facts.configDirectory}/postgresql.conf`,
              lines: [`include_if_exists = '${ownedConfigFile}'  ${includeMarker}`],
            },
          ]),
      ...(hasBlock
        ? []
        : [
            {
              file: live.hbaFile,
              lines: [
                `# BEGIN replctl ${inventory.cluster}`,
                ...hbaLines,
                `# END replctl ${inventory.cluster}`,
              ],
            },
          ]),
    ],
  }
}

/** How many connections an instance takes; undefined where there is none yet, or walsenders are not among them. */
export async function connectionLimitsOf(
  node: Node,
  facts: NodeFacts,
): Promise<ConnectionLimits | undefined> {
  const isApart = capabilitiesOf(majorOf(facts)).walsendersApart
  if (isApart || facts.dataDirectoryState !== 'instance') return undefined
  const names = ['max_connections', 'superuser_reserved_connections'] as const
  const settings = facts.instance?.settings ?? (await readLiveConfiguration(node, facts, names)).settings
  return Object.fromEntries(names.map((name) => [name, settings[name]?.value]))
}

/** pg_control knows it also of a stopped instance. */
function checksumsOf({ control }: NodeFacts) {
  if (control === null) return {}
  const value = control.dataChecksums ? 'on' : 'off'
  return { data_checksums: { value, unit: null, context: 'internal', source: 'default' } }
}
