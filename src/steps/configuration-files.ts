import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { mayBeLeftBehind, type Step, type StepContext } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
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

/** The files that one step has written in this run, as they were before: what its undo puts back. */
export class WrittenFiles {
  #changes: readonly FileChange[] | null = null

  /** Writes them, and remembers each before it is touched. */
  async write(ctx: StepContext, name: NodeName, changes: readonly FileChange[]): Promise<void> {
    this.#changes = changes
    for (const { path, wanted, live } of changes) {
      await writeTextFile(ctx.on(name), path, wanted, live === null ? { mode: '0600' } : {})
    }
  }

  /**
   * Puts them back where they are still as this run wrote them. Of an instance that is not built yet only what lies outside of its
   * data directory (Debian): the operation that builds it discards that as a whole, or puts all of what was there before it was
   * taken over back.
   */
  async putBack(ctx: StepContext, name: NodeName): Promise<void> {
    const facts = await look(ctx, name)
    const isOutside = facts.configDirectory !== ctx.on(name).settings.postgres.dataDir
    if (facts.mark?.phase !== 'done' && !(isOutside && this.#changes !== null)) return
    if (this.#changes === null) throw leftAsRendered(name)
    for (const change of this.#changes.toReversed()) {
      const now = await readTextFile(ctx.on(name), change.path)
      if (now === change.wanted) await putBack(ctx, name, change)
      else if (now !== change.live) ctx.warn(changedMeanwhile(name, change.path))
    }
    if (facts.instance !== null) await reloadConfiguration(ctx, name)
  }
}

/** A step that writes configuration files: a failure after it brings back what was in force before. */
export function puttingBack(written: WrittenFiles, step: Step): Step {
  return mayBeLeftBehind({
    ...step,
    undo: (ctx) => written.putBack(ctx, step.node),
    undoEndsWithRun: true,
  })
}

function leftAsRendered(node: NodeName): ReplctlError {
  return new ReplctlError('cannot-abort', `the configuration of ${node} stays as it was rendered`, {
    detail: 'A run that was cut off wrote it; what stood there before that run is not known any more.',
    hint: 'Where the inventory is not as you wish: correct it, then run the command again that rendered it.',
    node,
  })
}

function changedMeanwhile(node: NodeName, path: string): ReplctlError {
  return new ReplctlError('cannot-abort', `${path} on ${node} is left as it is`, {
    detail: 'Somebody has changed it since this run wrote it.',
    hint: 'Compare it with what you wish it to say.',
    node,
  })
}

/** Reloads a running instance and waits until it has read its files. */
export async function reloadConfiguration(ctx: StepContext, node: NodeName): Promise<void> {
  const sql = await sqlNow(ctx, node)
  const before = await sql.value('SELECT pg_conf_load_time()::text')
  const { service } = ctx.on(node).settings.postgres
  const own = typeof service === 'object' ? service.reload : undefined
  if (own === undefined) await sql.execute('SELECT pg_reload_conf()')
  else await ctx.on(node).output(shellScript(own, own, [], { runAs: 'login' }))
  const deadline = Date.now() + 5_000
  while (Date.now() < deadline) {
    // A session takes over a reload between two statements, and pg_conf_load_time() is that of its own.
    const now = await sql.value(`SELECT nullif(pg_conf_load_time()::text, ${quoteLiteral(before ?? '')})`)
    if (now !== null) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
