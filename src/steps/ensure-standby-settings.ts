import type { NodeFacts } from '../cluster/facts.ts'
import { copiesLogicalSlots } from '../cluster/failover-slots.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { ownedConfigFile, ownedStandbyFile, standbyConfigText } from '../cluster/node-configuration.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import { lastValues, parseConfigFile, removeSettings } from '../postgres/config-file.ts'
import { overridesStandby, recoverySettingNames } from '../postgres/settings.ts'
import { type Capabilities, capabilitiesOf } from '../postgres/versions.ts'
import { restoreCommandOf } from './archive-wish.ts'
import type { ClusterInput } from './cluster-input.ts'
import { reloadConfiguration } from './configuration-files.ts'
import { stopInstance } from './fence-instance.ts'
import { ask, look, lookAsChecked, majorOf } from './look.ts'
import { restartInstance } from './restart-instance.ts'

/** Settings that say where this very instance is and listens. */
const placeNames = [
  ...['listen_addresses', 'port', 'unix_socket_directories'],
  ...['data_directory', 'config_file', 'hba_file', 'ident_file', 'external_pid_file'],
]

/**
 * Makes a node a standby of its upstream: standby.signal and `replctl.standby.conf` (12 and newer) or recovery.conf
 * (11). What pg_basebackup -R or ALTER SYSTEM wrote into postgresql.auto.conf would win over it and is taken out there.
 * Where the instance runs it is told: by reload where its version can (from 14 on all of it), by restart before.
 */
export function ensureStandbySettings(
  node: NodeName,
  upstream: NodeSettings,
  { inventory, templates }: ClusterInput,
): Step {
  /** Written by this run, and taken over by a restart only. */
  let isToRestart = false
  /** A reload was enough, and is done: who waits for the standby sees what became of it. */
  let isTakenOver = false
  const plan = async (ctx: StepContext, facts: NodeFacts) => {
    const { dataDir } = ctx.node.settings.postgres
    const major = majorOf(facts)
    const has = capabilitiesOf(major)
    const path = has.recoveryConf
      ? `${dataDir}/recovery.conf`
      : `${facts.configDirectory}/${ownedStandbyFile}`
    const wanted = await standbySettingsText(ctx, facts, upstream, { inventory, templates })
    // What a look shows of recovery.conf has its passwords masked.
    const live = has.recoveryConf ? await readTextFile(ctx.node, path) : facts.standbyConf
    // A clone has that of its source, whose addresses and places are not its own.
    const names = [
      ...(has.recoveryConf ? [] : recoverySettingNames(major)),
      ...(facts.mark?.phase === 'cloned' ? placeNames : []),
    ]
    const overriding = overridesStandby(parseConfigFile(facts.autoConf), names)
    const isWritten = live?.trim() === wanted.trim()
    return {
      path,
      isWritten,
      needsRestart: needsRestart(live ?? '', wanted, has),
      wanted,
      overriding,
      has,
    }
  }
  return {
    title: `render the settings of a standby of ${upstream.name}`,
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.dataDirectoryState !== 'instance') return unknownUntil('the base backup')
      const { isWritten, path, overriding, has } = await plan(ctx, facts)
      if (!isWritten) return pending(`${path} is to be written`)
      if (overriding.length > 0) {
        return pending(`postgresql.auto.conf overrides ${overriding.map((entry) => entry.name).join(', ')}`)
      }
      if (!facts.hasStandbySignal) return pending('the standby signal is missing')
      return facts.instance === null || isInForce(facts, upstream, has.recoveryConf)
        ? satisfied(`${path} is as rendered`)
        : pending('the running instance has not taken it over')
    },
    apply: async (ctx) => {
      const facts = await lookAsChecked(ctx)
      const { dataDir } = ctx.node.settings.postgres
      const { isWritten, wanted, path, overriding, has, ...planned } = await plan(ctx, facts)
      isToRestart = planned.needsRestart
      if (!facts.hasStandbySignal && !has.recoveryConf) {
        await writeTextFile(ctx.node, `${dataDir}/standby.signal`, '', { mode: '0600' })
      }
      if (!isWritten) await writeTextFile(ctx.node, path, wanted, { mode: '0600' })
      if (overriding.length > 0) {
        const auto = `${dataDir}/postgresql.auto.conf`
        const names = overriding.map((entry) => entry.name)
        await writeTextFile(ctx.node, auto, removeSettings((await readTextFile(ctx.node, auto)) ?? '', names))
        // One that runs without it takes no query, whatever the file says by now: it is started again, as a standby.
        if (names.includes('hot_standby') && facts.hasStandbySignal && facts.instance === null)
          await stopInstance(ctx, node)
      }
      if (facts.instance === null || has.recoveryConf) return
      await reloadConfiguration(ctx, node)
      isTakenOver = !isToRestart && has.reloadsPrimaryConninfo
    },
    verify: async (ctx) => {
      if (isTakenOver) return
      const facts = await look(ctx)
      if (facts.instance === null) return
      const has = capabilitiesOf(majorOf(facts))
      const isLate = !has.reloadsPrimaryConninfo && !isInForce(facts, upstream, has.recoveryConf)
      if (!isToRestart && !isLate) return
      await restartInstance(ctx, facts)
      isToRestart = false
      await ask(ctx)
    },
  }
}

/** Whether a running server takes what changed from the one text to the other over by a restart only. */
export function needsRestart(live: string, wanted: string, has: Capabilities): boolean {
  const [before, after] = [live, wanted].map((text) => lastValues(parseConfigFile(text)))
  const names = new Set([...(before?.keys() ?? []), ...(after?.keys() ?? [])])
  const changed = [...names].filter((name) => before?.get(name) !== after?.get(name))
  if (has.recoveryConf) return changed.length > 0
  return changed.some(
    (name) =>
      (!has.reloadsPrimaryConninfo && ['primary_conninfo', 'primary_slot_name'].includes(name)) ||
      (!has.reloadsRestoreCommand && name === 'restore_command'),
  )
}

/** What makes a node a standby of this upstream: the text of recovery.conf (11) or replctl.standby.conf. */
export async function standbySettingsText(
  ctx: StepContext,
  facts: NodeFacts,
  upstream: NodeSettings,
  { inventory, templates }: ClusterInput,
): Promise<string> {
  const node = ctx.on(facts.name).settings
  return standbyConfigText({
    ...{ inventory, node, templates, major: majorOf(facts), home: facts.home, upstream, standbys: [] },
    restoreCommand: restoreCommandOf(inventory, node, facts),
    walLevel: await walLevelOf(ctx, facts, inventory),
  })
}

/** wal_level as a node runs with it; of a stopped one what its files will start it with. Null where it does not matter. */
async function walLevelOf(
  ctx: StepContext,
  facts: NodeFacts,
  inventory: ClusterInput['inventory'],
): Promise<string | null> {
  const node = ctx.on(facts.name)
  if (!copiesLogicalSlots(inventory, node.settings, majorOf(facts))) return null
  const live = facts.instance?.settings.wal_level?.value
  if (live !== undefined) return live
  const own = await readTextFile(node, `${facts.configDirectory}/${ownedConfigFile}`)
  const written = lastValues(parseConfigFile(`${own ?? ''}\n${facts.autoConf}`))
  return written.get('wal_level')?.toLowerCase() ?? null
}

/**
 * Whether the running instance is told to receive from this upstream. With recovery.conf only what it does can be seen: one
 * that receives from nobody may have read the file before it was changed.
 */
function isInForce(facts: NodeFacts, upstream: NodeSettings, hasRecoveryConf: boolean): boolean {
  if (hasRecoveryConf) {
    const sender = facts.instance?.receiver ?? null
    return (
      sender !== null &&
      sender.senderHost === upstream.address &&
      sender.senderPort === upstream.postgres.port
    )
  }
  const conninfo = facts.instance?.settings.primary_conninfo?.value ?? ''
  return (
    conninfo.includes(`host=${upstream.address} `) && conninfo.includes(`port=${upstream.postgres.port} `)
  )
}
