import { ReplctlError } from '../errors.ts'
import { lsnDistance } from '../postgres/lsn.ts'
import { settingNumber } from '../postgres/setting-value.ts'
import { judgeSettings, type SettingVerdict, standbyParityParameters } from '../postgres/settings.ts'
import type { NodeFacts } from './facts.ts'
import type { ReplicationSettings } from './inventory.ts'
import { ownedConfigFile } from './node-configuration.ts'
import { identifierOf } from './record.ts'

/** One setting as an instance has it; as `readLiveConfiguration` reads it. */
export interface AdoptedSetting {
  readonly value: string
  readonly unit: string | null
  readonly context: string | null
  readonly source: string
  readonly isEnum?: boolean
  readonly isFromOwnFile?: boolean
}

export interface AdoptionInput {
  readonly node: string
  readonly isRunning: boolean
  readonly settings: Readonly<Record<string, AdoptedSetting>>
  readonly autoConf: ReadonlyMap<string, string>
  readonly commandLine: readonly string[]
  readonly needed: ReadonlyMap<string, string>
  /** What stands in replctl.conf; the server may spell it otherwise: `wal_compression = on` is `pglz` from 15 on. */
  readonly written?: ReadonlyMap<string, string>
  /** Names in postgres.parameters. */
  readonly wished: readonly string[]
  /** Its service starts it without the options it has on its command line now. */
  readonly restartLosesOptions: boolean
}

export interface AdoptionVerdict {
  readonly changes: readonly SettingVerdict[]
  /** The instance runs, and something it needs counts only after a restart. */
  readonly isRestartNeeded: boolean
  /** Why replctl's settings could not come into force. */
  readonly refusal: ReplctlError | null
}

/** What has to change in an instance that is taken over, and whether it can. */
export function judgeAdoption(input: AdoptionInput): AdoptionVerdict {
  const { needed, settings, isRunning } = input
  const wished = input.wished.map((name) => name.toLowerCase())
  const entries = Object.entries(settings)
  const live = Object.fromEntries(entries.map(([name, setting]) => [name, setting.value]))
  const units = Object.fromEntries(entries.map(([name, setting]) => [name, setting.unit]))
  const enums = entries.flatMap(([name, { isEnum }]) => (isEnum === true ? [name] : []))
  const isInForce = ({ name, needed }: SettingVerdict) =>
    settings[name]?.isFromOwnFile === true && input.written?.get(name) === needed
  const judged = judgeSettings(live, needed, { wished, units, enums, contexts: contextsOf(input) })
  const changes = judged.filter((one) => !isInForce(one))
  const isRestartNeeded = isRunning && changes.some((one) => one.change === 'restart' && !one.canWait)
  return { changes, isRestartNeeded, refusal: refusalOf(input, changes, isRestartNeeded) }
}

/** A setting of an extension that is not loaded is unknown to the server, and no restart of its own makes it known. */
function contextsOf({ settings, needed, isRunning }: AdoptionInput): Record<string, string> {
  const known = Object.entries(settings).flatMap(([name, { context }]) =>
    context === null ? [] : [[name, context] as const],
  )
  const extensions = [...needed.keys()].filter((name) => isRunning && name.includes('.'))
  return { ...Object.fromEntries(extensions.map((name) => [name, 'sighup'])), ...Object.fromEntries(known) }
}

function refusalOf(
  input: AdoptionInput,
  changes: readonly SettingVerdict[],
  isRestartNeeded: boolean,
): ReplctlError | null {
  const { node, settings } = input
  const overriding = judgeAutoConf(input)
  if (overriding.length > 0) return overriddenByAlterSystem(node, overriding)
  const onCommandLine = changes.filter((change) => settings[change.name]?.source === 'command line')
  if (onCommandLine.length > 0) return overriddenByCommandLine(node, onCommandLine)
  if (isRestartNeeded && input.restartLosesOptions && input.commandLine.length > 0) {
    return wouldLoseOptions(node, input.commandLine)
  }
  return null
}

const namesSetting = 'synchronous_standby_names'

/**
 * Names whose written value counts, not one as good. Whom commits wait for stays where the cluster is to be synchronous, until
 * standbys of ours take their place; asynchronous, nobody is waited for.
 */
export function wishedSettings(
  parameters: Readonly<Record<string, string>>,
  mode: ReplicationSettings['mode'],
): readonly string[] {
  return [...Object.keys(parameters), ...(mode === 'async' ? [namesSetting] : [])]
}

/** Whom commits wait for now and would not any more; null where that does not change. */
export function namesGivenUp(changes: readonly SettingVerdict[]): string | null {
  const change = changes.find((one) => one.name === namesSetting)
  return change?.needed === '' && change.live !== undefined && change.live !== '' ? change.live : null
}

/**
 * Standbys that receive already get nowhere with less than their primary was started with: from 14 on they pause, before they shut
 * down. Null: nothing is raised, or there are none.
 */
export function standbysLeftBehind(
  { name, instance }: NodeFacts,
  changes: readonly SettingVerdict[],
): ReplctlError | null {
  const raised = changes.filter(
    (one) =>
      standbyParityParameters.some((parity) => parity === one.name) &&
      (settingNumber(one.needed) ?? 0) > (settingNumber(one.live ?? '') ?? 0),
  )
  const receiving = (instance?.replication ?? []).filter(({ state }) => state !== 'backup')
  const subscribers = (instance?.slots ?? []).filter(({ type, isActive }) => type === 'logical' && isActive)
  if (raised.length === 0 || receiving.length <= subscribers.length) return null
  const values = raised.map(({ name, live, needed }) => `${name} (${live} -> ${needed})`).join(', ')
  return new ReplctlError('settings-too-low', `standbys of ${name} need its new settings as well`, {
    detail: `${values} is raised by a restart of ${name}; a standby with less stops replaying then, and up to PostgreSQL 13 shuts down. Receiving now: ${receiving.map(({ applicationName }) => applicationName).join(', ')}.`,
    hint: 'Raise it on the standbys first, and restart them; or take them in right after, which does both: replctl add-standby NODE…',
    node: name,
  })
}

/** A slot that keeps more than it may is invalidated by the next checkpoint, for good; whoever made it. */
export function slotsAtRisk(facts: NodeFacts, changes: readonly SettingVerdict[]): ReplctlError | null {
  const change = changes.find((one) => one.name === 'max_slot_wal_keep_size')
  const limit = change === undefined ? undefined : settingNumber(change.needed, 'MB')
  const end = facts.instance?.currentLsn ?? null
  if (change === undefined || limit === undefined || limit < 0 || end === null) return null
  const kept = (facts.instance?.slots ?? []).flatMap(({ name, restartLsn, walStatus }) => {
    const bytes = restartLsn === null || walStatus === 'lost' ? 0 : lsnDistance(restartLsn, end)
    return bytes > limit ? [`"${name}" keeps ${bytes} bytes`] : []
  })
  if (kept.length === 0) return null
  return new ReplctlError(
    'settings-too-low',
    `a replication slot on ${facts.name} keeps more WAL than it may`,
    {
      detail: `${kept.join(', ')}; max_slot_wal_keep_size is to be ${change.needed} (it is ${change.live ?? 'unknown'}). The next checkpoint would invalidate it.`,
      hint: 'Raise replication.max_slot_wal_keep_size in the inventory, have the slot’s subscriber catch up, or drop the slot if nobody needs it.',
      node: facts.name,
    },
  )
}

/** What ALTER SYSTEM wrote counts, now or after the next restart, whatever replctl.conf says. */
function judgeAutoConf({ autoConf, needed, settings, wished }: AdoptionInput): readonly SettingVerdict[] {
  const written = new Map([...needed].filter(([name]) => autoConf.has(name)))
  const units = Object.fromEntries(Object.entries(settings).map(([name, { unit }]) => [name, unit]))
  const data_checksums = settings.data_checksums?.value ?? 'off'
  return judgeSettings({ ...Object.fromEntries(autoConf), data_checksums }, written, {
    wished: [...wished.map((name) => name.toLowerCase()), namesSetting],
    units,
  })
}

const pairs = (verdicts: readonly SettingVerdict[]) =>
  verdicts
    .map((one) => `${one.name} is ${one.live === '' ? "''" : one.live}, ${one.needed} is needed`)
    .join('; ')

function overriddenByAlterSystem(node: string, overriding: readonly SettingVerdict[]): ReplctlError {
  const statements = overriding.map((one) => `ALTER SYSTEM RESET ${quoteName(one.name)};`).join(' ')
  return new ReplctlError('setting-overridden', `ALTER SYSTEM on ${node} overrides what replctl has to set`, {
    detail: `In postgresql.auto.conf ${pairs(overriding)}. That file wins over ${ownedConfigFile}.`,
    hint: `Take it out there, then run the command again: ${statements}`,
    node,
  })
}

/** `pg_stat_statements.max` is two words for ALTER SYSTEM; nothing else needs care. */
const quoteName = (name: string) => (/^[a-z_][a-z0-9_.]*$/.test(name) ? name : `"${name}"`)

function overriddenByCommandLine(node: string, overriding: readonly SettingVerdict[]): ReplctlError {
  return new ReplctlError(
    'setting-overridden',
    `the command line of the server on ${node} overrides what replctl has to set`,
    {
      detail: `On the command line ${pairs(overriding)}. It wins over every file.`,
      hint: `Take ${overriding.map((one) => one.name).join(', ')} out of what starts the server (on Debian: pg_ctl.conf; its unit; postmaster.opts), restart it, then run the command again.`,
      node,
    },
  )
}

function wouldLoseOptions(node: string, options: readonly string[]): ReplctlError {
  return new ReplctlError(
    'setting-overridden',
    `a restart would lose settings on the command line of ${node}`,
    {
      detail: `${options.join(', ')} were given when the server was started; replctl's service would start it without them.`,
      hint: 'Put them into postgresql.conf or postgres.parameters, or name the commands that start it: postgres.service.',
      node,
    },
  )
}

/** Why an instance cannot be taken over as a primary, whatever its settings are. */
export function refusalToAdopt(
  facts: NodeFacts,
  dataDir: string,
  cluster: string,
  ownText: string | null,
): ReplctlError | null {
  const { name: node, dataDirectoryState: state } = facts
  if (state === 'missing' || state === 'empty') {
    return new ReplctlError('node-not-built', `there is nothing to adopt on ${node}`, {
      detail: `${dataDir} is ${state}.`,
      hint: `Correct postgres.data_dir (on Debian, pg_lsclusters shows it), or make a new instance: replctl init primary ${node}`,
      node,
    })
  }
  if (state !== 'instance') {
    return new ReplctlError('foreign-data-directory', `${dataDir} on ${node} is not a PostgreSQL instance`, {
      detail: 'It has no PG_VERSION.',
      hint: 'replctl leaves it alone. Correct postgres.data_dir: on Debian, pg_lsclusters shows it.',
      node,
    })
  }
  const isRecovering = /recovery/.test(facts.control?.state ?? '') && facts.instance?.isInRecovery !== false
  if (facts.hasStandbySignal || facts.instance?.isInRecovery === true || isRecovering) {
    return new ReplctlError('not-a-primary', `${node} is a standby: only a primary can be adopted`, {
      detail: `${facts.instance === null ? 'It is stopped' : 'It is in recovery'}, pg_control says "${facts.control?.state ?? 'unknown'}"${facts.hasStandbySignal ? ', and it has a standby signal' : ''}.`,
      hint: 'Adopt the primary that it receives from; then "replctl add-standby" takes this node in.',
      node,
    })
  }
  if (facts.fence !== null || facts.hasRewindInProgress) {
    return new ReplctlError('node-fenced', `${node} is fenced: it must not come up as a primary`, {
      hint: 'Another node took over from it. See "replctl status".',
      node,
    })
  }
  const other = clusterOf(ownText)
  if (other !== undefined && other !== cluster) {
    return new ReplctlError('foreign-cluster', `${node} belongs to replctl's cluster "${other}"`, {
      detail: `Its ${ownedConfigFile} was rendered for that cluster, not for "${cluster}".`,
      hint: `Name the cluster "${other}" in the inventory, or remove ${ownedConfigFile} and its include line.`,
      node,
    })
  }
  if (facts.postmaster?.isAlive === true && facts.instance === null) return cannotAsk(facts)
  return null
}

function cannotAsk(facts: NodeFacts): ReplctlError {
  const { instanceError, postmaster, name } = facts
  if (postmaster?.isFrozen === true || instanceError === null) {
    return new ReplctlError('not-answering', `PostgreSQL on ${name} does not answer`, {
      detail: `Its postmaster (pid ${postmaster?.pid}) exists${postmaster?.isFrozen === true ? ' and is frozen' : ''}.`,
      hint: 'Look at its log, then run the command again.',
      node: name,
    })
  }
  return instanceError.with({
    hint: 'replctl works as the superuser of the OS user, through the socket. If pg_hba.conf refuses that: "local all postgres peer" as its first line, and a reload.',
    node: name,
  })
}

/** For which cluster a replctl.conf was rendered; undefined: there is none. */
const clusterOf = (ownText: string | null) =>
  /^# Made by replctl for cluster "([^"]*)"/.exec(ownText ?? '')?.[1]

/** Whether replctl knows by its own notes on a node that it made, or has taken over, what runs there. */
export function isTakenOver(facts: NodeFacts): boolean {
  const identifier = identifierOf(facts)
  return [facts.mark, facts.record].some((note) => note !== null && note.systemIdentifier === identifier)
}

/**
 * Why no standby is added to a primary that replctl neither made nor took over: what it needs would be set over what the instance
 * has (wal_level, for whom commits wait), and a replication role that others use would get another password. A primary that lost
 * replctl's notes still has its `replctl.conf`. Null: it is ours.
 */
export function refusalOfForeignPrimary(
  facts: NodeFacts,
  cluster: string,
  ownText: string | null,
): ReplctlError | null {
  const rendered = clusterOf(ownText)
  if (rendered === cluster || isTakenOver(facts)) return null
  return new ReplctlError('foreign-cluster', `${facts.name} is a primary that replctl has not taken over`, {
    detail:
      rendered === undefined
        ? 'It was made without replctl, and its settings and roles are its own.'
        : `Its ${ownedConfigFile} was rendered for replctl's cluster "${rendered}", not for "${cluster}".`,
    hint: `First take it over, which shows what that changes: replctl init primary ${facts.name} --adopt`,
    node: facts.name,
  })
}
