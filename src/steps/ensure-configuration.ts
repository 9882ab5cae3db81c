import type { NodeFacts } from '../cluster/facts.ts'
import type { ReplicationSettings } from '../cluster/inventory.ts'
import { wishedSettings } from '../cluster/judge-adoption.ts'
import { standingFaults } from '../cluster/judge-archiving.ts'
import type { NodeName } from '../cluster/names.ts'
import { neededSettings, nodeConfigText, ownedConfigFile } from '../cluster/node-configuration.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readWithIncludes } from '../node/config-includes.ts'
import { readTextFile } from '../node/files.ts'
import { checkConfiguration } from '../node/live-settings.ts'
import { ensureLastInclude, lastValues, parseConfigFile } from '../postgres/config-file.ts'
import { parityFloors, readKeptSettings, sufficientSettings } from '../postgres/kept-settings.ts'
import { findSetting, judgeSettings } from '../postgres/settings.ts'
import { archiveCommandOf } from './archive-wish.ts'
import { assessAdoption, connectionLimitsOf } from './assess-adoption.ts'
import type { ClusterInput } from './cluster-input.ts'
import {
  type FileChange,
  placeOfFiles,
  putBack,
  puttingBack,
  reloadConfiguration,
  WrittenFiles,
} from './configuration-files.ts'
import { look, majorOf, sqlNow } from './look.ts'

export interface SettingsOptions {
  /** The instance is being taken over: what it has and is as good stays. It is not told to reload yet. */
  readonly isAdopting?: true
  /** The primary whose WAL this standby is going to replay: nothing that this depends on may be lower. */
  readonly like?: NodeName
  /** Whose files it will have: a plan for a copy that is yet to be made looks at those. */
  readonly copiedFrom?: NodeName
  /** What stands in the file and is not in force is told. Costs a statement, which a change of roles does without. */
  readonly tellsWaiting?: true
}

/**
 * Renders replctl's own settings beside the operator's: `replctl.conf`, included last by one marked line of
 * postgresql.conf. The operator's own lines and files stay as they are. A running instance is told to reload.
 */
export function ensureSettings(
  node: NodeName,
  input: ClusterInput,
  standbys: readonly NodeName[],
  options: SettingsOptions = {},
): Step {
  const { inventory, templates } = input
  const files = async (ctx: StepContext, facts: NodeFacts): Promise<FileChange[]> => {
    const main = `${facts.configDirectory}/postgresql.conf`
    const own = `${facts.configDirectory}/${ownedConfigFile}`
    const from = await placeOfFiles(ctx, facts, options.copiedFrom)
    const [mainText = null, ownText = null] = await Promise.all(
      from === null
        ? []
        : ['postgresql.conf', ownedConfigFile].map((name) =>
            readTextFile(from.on, `${from.directory}/${name}`),
          ),
    )
    const wish = {
      inventory,
      node: ctx.node.settings,
      templates,
      major: majorOf(facts),
      home: facts.home,
      standbys,
      isStandby: options.like !== undefined,
      socketDirectory: ctx.node.settings.postgres.parameters.unix_socket_directories,
      archiveCommand: archiveCommandOf(inventory, ctx.node.settings, facts),
      connectionLimits: await connectionLimitsOf(ctx.node, facts),
    }
    const kept = options.isAdopting
      ? (await assessAdoption(ctx.node, facts, { ...input, standbys })).kept
      : await settingsToKeep(ctx, facts, await keptBefore(ctx, facts, ownText, options.like), {
          needed: neededSettings(wish),
          like: options.like,
          mode: inventory.replication.mode,
        })
    const wanted = nodeConfigText({ ...wish, kept })
    return [
      { path: own, live: ownText, wanted },
      { path: main, live: mainText, wanted: ensureLastInclude(mainText ?? '', ownedConfigFile) },
    ]
  }
  const isChange = ({ live, wanted }: FileChange) => live !== wanted
  const written = new WrittenFiles()
  const step: Step = {
    title: "render replctl's settings and include them",
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const found = await files(ctx, facts)
      const changes = found.filter(isChange)
      if (changes.length > 0) return pending(`to write: ${changes.map((change) => change.path).join(', ')}`)
      const live = facts.instance?.isInRecovery === false && options.isAdopting !== true
      if (live && facts.instance?.settings[namesSetting]?.value !== wantedNames(found))
        return pending(`${namesSetting} is not in force`)
      if (options.tellsWaiting) await tellNotInForce(ctx, facts)
      return satisfied('they are as rendered')
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      const found = await files(ctx, facts)
      const made = found.filter(isChange)
      await written.write(ctx, node, made)
      if (facts.instance === null || options.isAdopting) return
      const said = made.length === 0 ? null : await checkConfiguration(ctx.node, facts)
      if (said !== null) {
        for (const change of made) await putBack(ctx, node, change)
        throw settingsRejected(node, said)
      }
      await reloadConfiguration(ctx, node)
      await requireNamesInForce(ctx, node, found)
      if (facts.mark?.phase === 'done' && made.some(changesArchiving)) {
        for (const [error] of standingFaults(inventory, await look(ctx))) ctx.warn(error)
      }
    },
  }
  return options.isAdopting ? step : puttingBack(written, step)
}

/**
 * What replctl.conf says and the server does without: it waits for a restart, or something that is read later says otherwise, and
 * is not as good. A node that is not built yet is restarted for it; of archive_mode its own fault tells.
 */
async function tellNotInForce(ctx: StepContext, facts: NodeFacts): Promise<void> {
  if (facts.instance === null || facts.mark?.phase !== 'done') return
  const found = await (await sqlNow(ctx, facts.name)).json<{
    readonly waiting: readonly string[]
    readonly overridden: readonly Override[]
  }>(
    `WITH last AS (SELECT DISTINCT ON (name) name, setting, sourcefile FROM pg_file_settings ORDER BY name, seqno DESC),
       own AS (SELECT DISTINCT ON (name) name, setting FROM pg_file_settings
         WHERE sourcefile LIKE '%/${ownedConfigFile}' ORDER BY name, seqno DESC)
     SELECT json_build_object(
       'waiting', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM own JOIN last USING (name)
         JOIN pg_settings s USING (name) WHERE s.pending_restart AND own.setting = last.setting),
       'overridden', (SELECT coalesce(json_agg(json_build_object('name', name, 'by', last.sourcefile, 'says', last.setting, 'wanted', own.setting)
         ORDER BY name), '[]') FROM own JOIN last USING (name) WHERE own.setting <> last.setting))`,
  )
  const isTold = (name: string) =>
    name === 'archive_mode' || findSetting(name, majorOf(facts))?.canWait === true
  const waiting = found.waiting.filter((name) => !isTold(name))
  if (waiting.length > 0) ctx.warn(waitsForRestart(facts, waiting))
  const { parameters } = ctx.on(facts.name).settings.postgres
  const wished = Object.keys(parameters).map((name) => name.toLowerCase())
  const data_checksums = facts.control?.dataChecksums === true ? 'on' : 'off'
  const worse = found.overridden.filter(
    ({ name, says, wanted }) =>
      judgeSettings({ data_checksums, [name]: says }, new Map([[name, wanted]]), { wished }).length > 0,
  )
  if (worse.length > 0) ctx.warn(overridden(facts.name, worse))
}

interface Override {
  readonly name: string
  /** The file, and what it says. */
  readonly by: string
  readonly says: string
  readonly wanted: string
}

/** Turned on or off: a running server takes that over at a restart only, and nobody restarts a member of the cluster for it. */
function changesArchiving({ live, wanted }: FileChange): boolean {
  const [before, after] = [live ?? '', wanted].map((text) =>
    lastValues(parseConfigFile(text)).get('archive_mode'),
  )
  return before !== after
}

/**
 * Nothing on a standby that is to lead overrides whom commits will wait for: what `ALTER SYSTEM` wrote wins over replctl's file, and
 * would be in force with the first commit that it takes.
 */
export function requireNamesToCome(node: NodeName): Step {
  return {
    title: `require nothing to override ${namesSetting} once it leads`,
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const override = lastValues(parseConfigFile(facts.autoConf)).get(namesSetting)
      if (override === undefined) return satisfied('nothing does')
      const own = await readTextFile(ctx.node, `${facts.configDirectory}/${ownedConfigFile}`)
      const rendered = lastValues(parseConfigFile(own ?? '')).get(namesSetting) ?? ''
      return override === rendered
        ? satisfied('postgresql.auto.conf says the same')
        : refused(namesOverridden(node, override, rendered))
    },
  }
}

/** Whom commits wait for is what the file says, on a primary that was just told. @throws {ReplctlError} `setting-overridden` */
async function requireNamesInForce(
  ctx: StepContext,
  node: NodeName,
  files: readonly FileChange[],
): Promise<void> {
  const wanted = wantedNames(files)
  const sql = await sqlNow(ctx, node)
  const live = await sql.value(
    `SELECT setting FROM pg_settings WHERE name = '${namesSetting}' AND NOT pg_is_in_recovery()`,
  )
  if (live !== null && live !== wanted) throw namesOverridden(node, live, wanted)
}

const namesSetting = 'synchronous_standby_names'

function wantedNames(files: readonly FileChange[]): string {
  const own = files.find(({ path }) => path.endsWith(`/${ownedConfigFile}`))
  return lastValues(parseConfigFile(own?.wanted ?? '')).get(namesSetting) ?? ''
}

/** What replctl.conf keeps of an adopted instance. A clone has the file of its source: not all in it is the clone's own. */
export function keptOfItsOwn(
  ownText: string,
  { mark, hasStandbySignal }: Pick<NodeFacts, 'mark' | 'hasStandbySignal'>,
): Record<string, string> {
  const earlier = readKeptSettings(ownText)
  const isClone = mark?.phase !== 'done'
  if (isClone) delete earlier.listen_addresses
  // For whom commits waited when the source was taken over is nothing that a standby may ever lead with.
  if (isClone || hasStandbySignal) delete earlier[namesSetting]
  return earlier
}

/**
 * What a node's replctl.conf keeps. One that has none yet keeps what its primary does: a clone of a Debian cluster did not get the
 * file with its data, and would lead with less one day, without logical WAL for one.
 */
async function keptBefore(
  ctx: StepContext,
  facts: NodeFacts,
  ownText: string | null,
  primary: NodeName | undefined,
): Promise<Record<string, string>> {
  if (ownText !== null || primary === undefined) return keptOfItsOwn(ownText ?? '', facts)
  const { configDirectory } = await look(ctx, primary)
  const text = await readTextFile(ctx.on(primary), `${configDirectory}/${ownedConfigFile}`)
  return keptOfItsOwn(text ?? '', { mark: null, hasStandbySignal: true })
}

/** What is kept already, as far as it is as good, and what a standby needs to have nothing lower than its primary. */
async function settingsToKeep(
  ctx: StepContext,
  facts: NodeFacts,
  earlier: Record<string, string>,
  {
    needed,
    like,
    mode,
  }: {
    readonly needed: ReadonlyMap<string, string>
    readonly like: NodeName | undefined
    readonly mode: ReplicationSettings['mode']
  },
): Promise<ReadonlyMap<string, string>> {
  const data_checksums = facts.control?.dataChecksums === true ? 'on' : 'off'
  const wished = wishedSettings(ctx.node.settings.postgres.parameters, mode)
  const kept = sufficientSettings({ ...earlier, data_checksums }, needed, wished)
  const others = Object.entries(earlier).filter(([name]) => !needed.has(name))
  if (like === undefined) return new Map([...others, ...kept])
  const primary = Object.entries((await look(ctx, like)).instance?.settings ?? {})
  const files = await readWithIncludes(ctx.node, `${facts.configDirectory}/postgresql.conf`)
  const own = {
    ...Object.fromEntries(lastValues(parseConfigFile(files))),
    ...Object.fromEntries([...others, ...kept]),
  }
  const floors = parityFloors(
    Object.fromEntries(primary.map(([name, setting]) => [name, setting.value])),
    own,
    new Map([...needed, ...kept]),
  )
  return new Map([...others, ...kept, ...floors])
}

function settingsRejected(node: NodeName, said: string): ReplctlError {
  return new ReplctlError('start-failed', `PostgreSQL on ${node} would not start with these settings`, {
    detail: `It says: ${said}. The files are as they were before, and so are the settings in force.`,
    hint: 'Correct what it names (postgres.parameters of the inventory), then run the command again.',
    node,
  })
}

function waitsForRestart({ name, instance }: NodeFacts, waiting: readonly string[]): ReplctlError {
  return new ReplctlError('restart-needed', `${name} has to be restarted for some of its settings`, {
    detail: `${waiting.join(', ')} ${waiting.length === 1 ? 'is' : 'are'} as rendered in ${ownedConfigFile}, and not yet in force.`,
    hint: `Restart PostgreSQL on ${name} when it suits: standbys first, ${instance?.isInRecovery === true ? 'the primary' : 'a primary'} after a switchover.`,
    node: name,
  })
}

function overridden(node: NodeName, found: readonly Override[]): ReplctlError {
  const said = found.map(({ name, by, says }) => `${name} is '${says}' in ${by}`)
  return new ReplctlError('setting-overridden', `something overrides what replctl renders on ${node}`, {
    detail: `${said.join('; ')}: that file wins over ${ownedConfigFile}.`,
    hint: `Take it out there (ALTER SYSTEM RESET ${found[0]?.name}; and a reload), or put it into postgres.parameters.`,
    node,
  })
}

function namesOverridden(node: NodeName, live: string, wanted: string): ReplctlError {
  return new ReplctlError('setting-overridden', `${node} does not wait for whom it should wait for`, {
    detail: `synchronous_standby_names is '${live}', and replctl.conf says '${wanted}': something else overrides it.`,
    hint: 'Take it out there, as a rule: ALTER SYSTEM RESET synchronous_standby_names; then run the command again.',
    node,
  })
}
