import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import type { StepContext } from '../engine/step.ts'
import { writeTextFile } from '../node/files.ts'
import type { Node } from '../node/node.ts'
import { quoteLiteral } from '../postgres/sql.ts'
import { look, sqlNow } from './look.ts'

/** One file of a node's configuration as it is and as it should be. */
export interface FileChange {
  readonly path: string
  readonly live: string | null
  readonly wanted: string
}

/** Where the files of a node are read: in a plan for a clone at the source, as far as they come with the data directory. */
export async function placeOfFiles(
  ctx: StepContext,
  facts: NodeFacts,
  copiedFrom: NodeName | undefined,
): Promise<{ readonly on: Node; readonly directory: string } | null> {
  const own = { on: ctx.on(facts.name), directory: facts.configDirectory }
  if (copiedFrom === undefined || !ctx.isDryRun || facts.dataDirectoryState === 'instance') return own
  const there = await look(ctx, copiedFrom)
  const on = ctx.on(copiedFrom)
  return there.configDirectory === on.settings.postgres.dataDir
    ? { on, directory: there.configDirectory }
    : null
}

/** A file that a step has written, as it was before. */
export async function putBack(ctx: StepContext, name: NodeName, { path, live }: FileChange): Promise<void> {
  if (live !== null) await writeTextFile(ctx.on(name), path, live)
  else await ctx.on(name).output(shellScript(`remove ${path}`, 'rm -f -- "$1"', [path]))
}

/** Reloads a running instance and waits until it has read its files. */
export async function reloadConfiguration(ctx: StepContext, node: NodeName): Promise<void> {
  const sql = await sqlNow(ctx, node)
  const before = await sql.value('SELECT pg_conf_load_time()::text')
  await sql.execute('SELECT pg_reload_conf()')
  const deadline = Date.now() + 5_000
  while (Date.now() < deadline) {
    // A session takes over a reload between two statements, and pg_conf_load_time() is that of its own.
    const now = await sql.value(`SELECT nullif(pg_conf_load_time()::text, ${quoteLiteral(before ?? '')})`)
    if (now !== null) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
