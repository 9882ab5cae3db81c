import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import { refusalToAdopt } from '../cluster/judge-adoption.ts'
import { ownedConfigFile } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { refused, type Step, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readTextFile } from '../node/files.ts'
import type { Node } from '../node/node.ts'
import { type AdoptionWish, assessAdoption } from './assess-adoption.ts'
import { look } from './look.ts'

/** What stands there is an instance, a primary, nobody else's, and it answers if it runs. */
export function requireAdoptableInstance({ name }: NodeSettings): Step {
  return {
    title: 'require an instance that is a primary',
    node: name,
    check: async (ctx) => {
      const facts = await look(ctx)
      const error = await adoptionRefusal(ctx.node, facts)
      const identifier = facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier
      if (error !== null) return refused(error)
      return satisfied(`${facts.instance === null ? 'stopped' : 'running'}, system identifier ${identifier}`)
    },
  }
}

/** Why this instance cannot be adopted; null where it can. */
export async function adoptionRefusal(node: Node, facts: NodeFacts): Promise<ReplctlError | null> {
  const own = await readTextFile(node, `${facts.configDirectory}/${ownedConfigFile}`)
  const { dataDir } = node.settings.postgres
  const refusal = refusalToAdopt(facts, dataDir, node.cluster, own)
  if (refusal !== null || facts.instance === null) return refusal
  const expected = `${facts.configDirectory}/postgresql.conf`
  const actual = facts.instance.settings.config_file?.value ?? expected
  const isSame = shellScript('compare two paths', '[ "$1" -ef "$2" ]', [actual, expected])
  if (actual === expected || (await node.run(isSame)).status === 0) return null
  return new ReplctlError(
    'setting-overridden',
    `the configuration of ${node.name} lies where replctl does not look for it`,
    {
      detail: `The server reads ${actual}; replctl would change ${expected}.`,
      hint: `Start it with its configuration in ${dataDir}, or, on Debian, in /etc/postgresql/<version>/<name> with data_directory = '${dataDir}'.`,
      node: node.name,
    },
  )
}

/** Nothing that wins over replctl's own file says something else. */
export function requireSettingsNotOverridden({ name }: NodeSettings, wish: AdoptionWish): Step {
  return {
    title: "require that nothing overrides replctl's settings, and that no slot is lost by them",
    node: name,
    check: async (ctx) => {
      const { refusal } = await assessAdoption(ctx.node, await look(ctx), wish)
      return refusal === null
        ? satisfied('neither ALTER SYSTEM nor the command line does, and no slot keeps too much')
        : refused(refusal)
    },
  }
}
