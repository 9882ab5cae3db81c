import type { InstanceFacts, NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import type { StepContext } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readInstanceTogether } from '../node/instance-facts.ts'
import type { SqlSession } from '../node/sql-session.ts'
import { recentFacts, sqlEndpointOf, surveyNode } from '../node/survey.ts'

/**
 * Facts of a node as they are now: at most a moment old, and gathered after replctl last did anything (in a check: after a
 * step last changed something). A step that looks again sees it anew; steps side by side share a look. Steps read
 * again instead of remembering. @throws if it cannot be reached
 */
export async function look(ctx: StepContext, name: NodeName = ctx.node.name): Promise<NodeFacts> {
  const notBefore = ctx.isChecking ? 0 : (ctx.seenAt.get(name) ?? 0)
  const facts = await recentFacts(ctx.on(name), { notBefore, mustBeQuiet: !ctx.isChecking })
  ctx.seenAt.set(name, performance.now())
  if (facts.unreachable !== null) throw facts.unreachable
  return facts
}

/**
 * What the check of this very step saw a moment ago, for an apply that has done nothing yet. Only where what the facts decide
 * proves itself again when it is done: a program that refuses, a file that is written whole.
 */
export async function lookAsChecked(ctx: StepContext, name: NodeName = ctx.node.name): Promise<NodeFacts> {
  return await look({ ...ctx, node: ctx.node, isChecking: true }, name)
}

/** Facts that were not there before the call: for those who are about to take something away for good. */
export async function lookAnew(ctx: StepContext, name: NodeName = ctx.node.name): Promise<NodeFacts> {
  const facts = await surveyNode(ctx.on(name))
  ctx.seenAt.set(name, performance.now())
  if (facts.unreachable !== null) throw facts.unreachable
  return facts
}

/** What the instance says of itself, without a look at its host where a session is open; null where it does not run. */
export async function lookAtInstance(
  ctx: StepContext,
  name: NodeName = ctx.node.name,
): Promise<InstanceFacts | null> {
  const open = await ctx.on(name).openSql()
  if (open !== null) {
    try {
      return await readInstanceTogether(open.sql)
    } catch {
      // It went away, or is silent: the host knows more.
    }
  }
  return (await look(ctx, name)).instance
}

/** Facts and SQL of a running instance. @throws {ReplctlError} `instance-stopped`, `not-answering` */
export async function ask(
  ctx: StepContext,
  name: NodeName = ctx.node.name,
): Promise<{ facts: NodeFacts; sql: SqlSession }> {
  const facts = await look(ctx, name)
  if (facts.instance === null) {
    throw (
      facts.instanceError ??
      new ReplctlError('instance-stopped', `PostgreSQL is not running on ${name}`, { node: name })
    )
  }
  return { facts, sql: await sqlOf(ctx, facts) }
}

/** SQL on the instance that these facts are of. */
export async function sqlOf(ctx: StepContext, facts: NodeFacts): Promise<SqlSession> {
  const node = ctx.on(facts.name)
  return await node.sql(sqlEndpointOf(node, facts))
}

/** SQL on the node without a look at its host: the session that is open, else one that a look opens. */
export async function sqlNow(ctx: StepContext, name: NodeName = ctx.node.name): Promise<SqlSession> {
  const open = await ctx.on(name).openSql()
  return open?.sql ?? (await ask(ctx, name)).sql
}

/** Folder of the node's programs. @throws {ReplctlError} `binaries-missing` */
export function binDirectoryOf(facts: NodeFacts): string {
  if (facts.binaries === null) throw binariesMissing(facts)
  return facts.binaries.directory
}

/** Major version of the node's data directory, else of its programs. */
export function majorOf(facts: NodeFacts): number {
  const major = facts.dataMajor ?? facts.binaries?.major
  if (major === undefined) throw binariesMissing(facts)
  return major
}

function binariesMissing(facts: NodeFacts): ReplctlError {
  const found = facts.installed.map((one) => `${one.version} in ${one.directory}`).join(', ')
  return new ReplctlError('binaries-missing', `found no suitable PostgreSQL programs on ${facts.name}`, {
    detail: found === '' ? 'None was found where Debian, PGDG and Homebrew put them.' : `Found: ${found}.`,
    hint: 'Install PostgreSQL there, or set postgres.bin_dir (and postgres.version) in the inventory.',
    node: facts.name,
  })
}

/**
 * Polls until `probe` gives something other than undefined.
 * @throws {ReplctlError} `timeout` at the deadline, `interrupted` when the operator asked to stop
 */
export async function awaitState<T>(
  ctx: StepContext,
  what: string,
  probe: () => Promise<T | undefined>,
  options: { readonly everyMs?: number; readonly timeoutMs?: number; readonly last?: () => string } = {},
): Promise<T> {
  const timeoutMs = options.timeoutMs ?? ctx.timeoutMs
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const found = await probe()
    if (found !== undefined) return found
    if (ctx.signal.aborted) throw new ReplctlError('interrupted', `interrupted while waiting: ${what}`)
    if (Date.now() >= deadline) {
      throw new ReplctlError('timeout', `waited ${timeoutMs / 1000} s in vain: ${what}`, {
        detail: options.last?.(),
        hint: 'The cluster may still get there: look with "replctl status", go on with "replctl resume".',
        node: ctx.node.name,
      })
    }
    await new Promise((resolve) => setTimeout(resolve, options.everyMs ?? 50))
  }
}
