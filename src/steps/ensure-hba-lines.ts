import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { nodeHbaLines, ownedConfigFile } from '../cluster/node-configuration.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readWithIncludes } from '../node/config-includes.ts'
import { readTextFile } from '../node/files.ts'
import type { Node } from '../node/node.ts'
import { lastValues, parseConfigFile } from '../postgres/config-file.ts'
import { ensureManagedBlock } from '../postgres/hba.ts'
import type { ClusterInput } from './cluster-input.ts'
import {
  type FileChange,
  placeOfFiles,
  putBack,
  puttingBack,
  reloadConfiguration,
  WrittenFiles,
} from './configuration-files.ts'
import type { SettingsOptions } from './ensure-configuration.ts'
import { look, majorOf, sqlNow } from './look.ts'

/** Keeps replctl's marked block at the top of pg_hba.conf: replication by password from the cluster's nodes. */
export function ensureHbaLines(
  node: NodeName,
  input: ClusterInput,
  { copiedFrom }: Pick<SettingsOptions, 'copiedFrom'> = {},
): Step {
  const written = new WrittenFiles()
  return puttingBack(written, {
    title: 'allow replication from the nodes of the cluster in pg_hba.conf',
    node,
    check: async (ctx) => {
      const { path, live, wanted } = await writeHbaLines(ctx, node, input, {
        ...{ isOnlyLook: true, copiedFrom },
      })
      return live === wanted ? satisfied(`${path} has the lines`) : pending(`${path} lacks the lines`)
    },
    apply: async (ctx) => {
      await writeHbaLines(ctx, node, input, { written })
    },
  })
}

/**
 * Writes replctl's block into pg_hba.conf, with `extra` lines at its end, tells a running instance, and reads back
 * whether it understands it; `isOnlyLook`: tells what that would change.
 */
export async function writeHbaLines(
  ctx: StepContext,
  name: NodeName,
  { inventory, templates }: ClusterInput,
  options: {
    readonly extra?: readonly string[]
    readonly isOnlyLook?: true
    readonly copiedFrom?: NodeName | undefined
    /** Who puts it back should the operation fail. */
    readonly written?: WrittenFiles
  },
): Promise<FileChange> {
  const node = ctx.on(name)
  const facts = await look(ctx, name)
  const path = await hbaFileOf(node, facts)
  const from = await placeOfFiles(ctx, facts, options.copiedFrom)
  const live =
    from === null
      ? null
      : await readTextFile(from.on, from.on === node ? path : `${from.directory}/pg_hba.conf`)
  const wish = { inventory, node: node.settings, templates, major: majorOf(facts) }
  const lines = [...nodeHbaLines(wish), ...(options.extra ?? [])]
  const change = { path, live, wanted: ensureManagedBlock(live ?? '', lines, inventory.cluster) }
  if (options.isOnlyLook === true) return change
  await (options.written ?? new WrittenFiles()).write(ctx, name, [change])
  if (facts.instance === null) return change
  await reloadConfiguration(ctx, name)
  const sql = await sqlNow(ctx, name)
  const wrong = await sql.value(
    `SELECT string_agg(format('line %s: %s', line_number, error), '; ') FROM pg_hba_file_rules WHERE error IS NOT NULL`,
  )
  if (wrong === null) return change
  // A server that restarts would not start with it.
  await putBack(ctx, name, change)
  await reloadConfiguration(ctx, name)
  throw hbaRejected(name, path, wrong)
}

/** The file that the server reads, or will read once it is started. */
async function hbaFileOf(
  node: Node,
  { instance, configDirectory, dataDirectoryState }: NodeFacts,
): Promise<string> {
  const usual = `${configDirectory}/pg_hba.conf`
  if (instance !== null) return instance.settings.hba_file?.value ?? usual
  if (dataDirectoryState !== 'instance') return usual
  const main = await readWithIncludes(node, `${configDirectory}/postgresql.conf`)
  const own = (await readTextFile(node, `${configDirectory}/${ownedConfigFile}`)) ?? ''
  const written = lastValues(parseConfigFile(`${main}\n${own}`))
  const named = written.get('hba_file')
  // A relative one starts from where the server is started. Without the file it does not start, and says so.
  const isThere =
    named?.startsWith('/') === true && named !== usual && (await readTextFile(node, named)) !== null
  return isThere ? named : usual
}

function hbaRejected(node: NodeName, path: string, wrong: string): ReplctlError {
  return new ReplctlError('sql-failed', `PostgreSQL on ${node} does not understand ${path}`, {
    detail: `${wrong}. The file is as it was before, and so are the rules in force.`,
    hint: 'Correct the line (postgres.hba of the inventory, or the operator’s own), then run the command again.',
    node,
  })
}
