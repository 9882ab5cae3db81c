import type { NodeFacts } from '../cluster/facts.ts'
import type { StepContext } from '../engine/step.ts'
import { serviceOf, startFailed } from '../node/service.ts'
import { runUnasked } from '../node/start-guard.ts'
import { awaitInstance } from './await-instance.ts'
import { binDirectoryOf } from './look.ts'

/** Restarts an instance (fast mode) and waits until it answers again. */
export async function restartInstance(ctx: StepContext, facts: NodeFacts): Promise<void> {
  await ctx.node.closeSql()
  const service = serviceOf(ctx.node, facts, binDirectoryOf(facts))
  const result = await runUnasked(ctx.node, facts, service.restart, { timeoutMs: ctx.timeoutMs })
  if (result.status !== 0) throw startFailed(facts.name, service, result.stderr || result.stdout)
  await awaitInstance(ctx, facts.name)
}
