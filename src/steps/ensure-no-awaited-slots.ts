import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { ownedConfigFile } from '../cluster/node-configuration.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import { emptySetting, lastValues, parseConfigFile } from '../postgres/config-file.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { reloadConfiguration } from './configuration-files.ts'
import { look, majorOf } from './look.ts'

const setting = 'synchronized_standby_slots'

/**
 * Empties `synchronized_standby_slots` of a former primary before it comes back: the slots that it names are dropped there, and
 * up to 17.6, and in 18.0, a name without a slot ends each parallel query (the check hook of the setting looks it up in
 * every worker). Nothing else of replctl.conf changes: what the inventory wishes by now is not what its return is to try.
 */
export function ensureNoAwaitedSlots(node: NodeName): Step {
  const read = async (ctx: StepContext, facts: NodeFacts) => {
    const path = `${facts.configDirectory}/${ownedConfigFile}`
    const isOfReplctl =
      capabilitiesOf(majorOf(facts)).slotSynchronisation &&
      ctx.node.settings.postgres.parameters[setting] === undefined
    const text = isOfReplctl ? ((await readTextFile(ctx.node, path)) ?? '') : ''
    return { path, text, names: lastValues(parseConfigFile(text)).get(setting) ?? '' }
  }
  return {
    title: 'have subscribers wait for no standby there',
    node,
    check: async (ctx) => {
      const { names } = await read(ctx, await look(ctx))
      return names === '' ? satisfied(`${setting} is empty`) : pending(`${setting} is '${names}'`)
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      const { path, text } = await read(ctx, facts)
      await writeTextFile(ctx.node, path, emptySetting(text, setting))
      if (facts.instance !== null) await reloadConfiguration(ctx, node)
    },
  }
}
