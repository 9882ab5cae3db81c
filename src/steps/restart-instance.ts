import type { NodeFacts } from '../cluster/facts.ts'
import type { StepContext } from '../engine/step.ts'
import { asReplctlError } from '../errors.ts'
import { type Service, serviceOf, startFailed } from '../node/service.ts'
import { runUnasked } from '../node/start-guard.ts'
import { awaitInstance } from './await-instance.ts'
import { awaitState, binDirectoryOf, look, sqlNow } from './look.ts'

/** A shutdown checkpoint of much memory on slow disks takes minutes; nobody is served better by a stop that is given up. */
const stopPatienceMs = 600_000

/** Restarts an instance (fast mode) and waits until it answers again. */
export async function restartInstance(ctx: StepContext, facts: NodeFacts): Promise<void> {
  const timeoutMs = Math.max(ctx.timeoutMs, stopPatienceMs)
  if (facts.instance?.isInRecovery === false) {
    // What is written now, while it serves, the shutdown checkpoint need not write while it does not.
    await (await sqlNow(ctx, facts.name)).execute('CHECKPOINT', { timeoutMs })
  }
  await ctx.node.closeSql()
  const service = serviceOf(ctx.node, facts, binDirectoryOf(facts))
  const result = await runUnasked(ctx.node, facts, service.restart, { timeoutMs }).catch(
    async (thrown: unknown) => await goOnAfterStop(ctx, facts, service, thrown),
  )
  if (result.status !== 0) throw startFailed(facts.name, service, result.stderr || result.stdout)
  await awaitInstance(ctx, facts.name)
}

/** A restart that was given up is ended between its stop and its start: the stop goes on, and nobody would start it. */
async function goOnAfterStop(
  ctx: StepContext,
  { name }: NodeFacts,
  service: Service,
  thrown: unknown,
): ReturnType<typeof runUnasked> {
  if (asReplctlError(thrown).code !== 'timeout') throw thrown
  const facts = await awaitState(
    ctx,
    `PostgreSQL on ${name} has come to its stop`,
    async () => {
      const now = await look(ctx)
      return now.postmaster?.isAlive === true && now.instance === null ? undefined : now
    },
    { timeoutMs: Math.max(ctx.timeoutMs, stopPatienceMs), everyMs: 500 },
  )
  if (facts.instance !== null) return { status: 0, signal: null, stdout: '', stderr: '' }
  return await runUnasked(ctx.node, facts, service.start, {
    timeoutMs: Math.max(ctx.timeoutMs, stopPatienceMs),
  })
}
