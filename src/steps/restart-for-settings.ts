import type { NodeSettings } from '../cluster/inventory.ts'
import { pending, type Step, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { checkConfiguration } from '../node/live-settings.ts'
import { assessAdoption } from './assess-adoption.ts'
import type { ClusterInput } from './cluster-input.ts'
import { look } from './look.ts'
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
        error: new ReplctlError('start-failed', `PostgreSQL on ${name} would not start with its configuration files`, {
          detail: `It says: ${said}`,
          hint: 'Correct what it names (postgres.parameters of the inventory, or the file), then run the command again.',
          node: name,
        }),
      }
    },
  }
}

/** The running instance has every setting that the cluster needs; where a reload is not enough it is restarted, once. */
export function ensureSettingsInForce({ name }: NodeSettings, input: ClusterInput): Step {
  return {
    title: 'restart PostgreSQL if a changed setting needs it',
    node: name,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance === null) return unknownUntil('PostgreSQL is started')
      const { changes } = await assessAdoption(ctx.node, facts, input)
      const missing = changes.filter((change) => change.change === 'restart' && !change.canWait)
      if (missing.length > 0) return pending(`not in force yet: ${missing.map((one) => one.name).join(', ')}`)
      return satisfied('every setting that the cluster needs is in force')
    },
    apply: async (ctx) => {
      await restartInstance(ctx, await look(ctx))
    },
  }
}
