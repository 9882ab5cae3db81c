import type { NodeFacts } from '../cluster/facts.ts'
import {
  type InsufficientSetting,
  insufficientSettings,
  tellInsufficient,
} from '../cluster/insufficient-settings.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { checkConfiguration } from '../node/live-settings.ts'
import type { SettingVerdict } from '../postgres/settings.ts'
import { quoteLiteral } from '../postgres/sql.ts'
import { type AdoptionWish, assessAdoption } from './assess-adoption.ts'
import { reloadConfiguration } from './configuration-files.ts'
import { ask, look } from './look.ts'
import { restartInstance } from './restart-instance.ts'

/** The files as they are now would not keep the server from starting. */
export function requireSoundConfiguration({ name }: NodeSettings): Step {
  return {
    title: 'have the server itself check its configuration files',
    node: name,
    check: async (ctx) => {
      const said = await checkConfiguration(ctx.node, await look(ctx))
      if (said === null) return satisfied('it would start with them')
      return {
        is: 'refused',
        error: new ReplctlError(
          'start-failed',
          `PostgreSQL on ${name} would not start with its configuration files`,
          {
            detail: `It says: ${said}`,
            hint: 'Correct what it names (postgres.parameters of the inventory, or the file), then run the command again.',
            node: name,
          },
        ),
      }
    },
  }
}

/**
 * The running instance has every setting that the cluster needs. It is told to reload, and where that is not enough it
 * is restarted, once.
 */
export function ensureSettingsInForce({ name }: NodeSettings, wish: AdoptionWish): Step {
  const missing = async (ctx: StepContext, facts: NodeFacts): Promise<readonly SettingVerdict[]> => {
    const { changes } = await assessAdoption(ctx.node, facts, wish)
    return changes.filter((change) => change.change === 'reload' || !change.canWait)
  }
  return {
    title: 'reload, or restart PostgreSQL if a changed setting needs it',
    node: name,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance === null) return unknownUntil('PostgreSQL is started')
      const names = (await missing(ctx, facts)).map((one) => one.name)
      if (names.length > 0) return pending(`not in force yet: ${names.join(', ')}`)
      return satisfied('every setting that the cluster needs is in force')
    },
    apply: async (ctx) => {
      await reloadConfiguration(ctx, name)
      const facts = await look(ctx)
      const left = await missing(ctx, facts)
      if (left.some((change) => change.change === 'restart')) await restartInstance(ctx, facts)
    },
  }
}

/**
 * A running standby that is taken in gets what only a restart brings into force, its addresses above all: else nobody could
 * follow it once it leads. One that is part of the cluster already is left alone, unless PostgreSQL has paused its replay for a
 * setting that is too low: where its files have enough by now, only a restart is missing.
 */
export function restartForPendingSettings(name: NodeName): Step {
  const waiting = (facts: NodeFacts) =>
    Object.entries(facts.instance?.settings ?? {}).flatMap(([setting, { isPendingRestart }]) =>
      isPendingRestart ? [setting] : [],
    )
  return {
    title: 'restart it where a setting that it was just given needs that',
    node: name,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance === null) return satisfied('it starts with all of them')
      const low = insufficientSettings(facts)
      if (low.length > 0) {
        // Restarted with too little it would not come up at all.
        if (await areRaised(ctx, low)) return pending(`its replay is paused: ${tellInsufficient(low)}`)
        if (ctx.isDryRun) return unknownUntil('its settings are rendered')
        return satisfied('a restart would not help: its files have too little, too')
      }
      if (facts.mark?.phase === 'done') return satisfied('it is part of the cluster already')
      const names = waiting(facts)
      return names.length === 0 ? satisfied('none of them does') : pending(`waiting: ${names.join(', ')}`)
    },
    apply: async (ctx) => await restartInstance(ctx, await look(ctx)),
  }
}

/** Whether the configuration files of a running instance have enough for what it has to replay. */
async function areRaised(ctx: StepContext, low: readonly InsufficientSetting[]): Promise<boolean> {
  const { sql } = await ask(ctx)
  const names = low.map(({ name }) => quoteLiteral(name)).join(', ')
  const inFiles = await sql.json<Record<string, string>>(
    `SELECT coalesce(json_object_agg(name, setting), '{}') FROM (
       SELECT DISTINCT ON (name) name, setting FROM pg_file_settings WHERE name IN (${names}) ORDER BY name, seqno DESC) s`,
  )
  return low.every(({ name, needed }) => Number(inFiles[name] ?? 0) >= needed)
}
