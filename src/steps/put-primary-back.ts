import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import type { StepContext } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { serviceOf, startFailed } from '../node/service.ts'
import { runUnasked } from '../node/start-guard.ts'
import { surveyNode } from '../node/survey.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { endPostmaster } from './end-postmaster.ts'
import { awaitState, binDirectoryOf, look, majorOf } from './look.ts'

/** A postmaster on its way out may take this long before it is made to go: nobody can write meanwhile. */
const patienceMs = 1_000

const removeSignalScript = `
rm -f -- "$1/standby.signal"
if [ -n "$2" ]; then rm -f -- "$1/recovery.conf"; fi
sync "$1" 2>/dev/null || sync
`

/**
 * Gives a primary its post back, however far its stop had come: running, shutting down, shut down, crashed, or started again
 * as a standby. Only before the promotion, which the journal on this very node would tell; and never beside a writer, which the
 * others are asked for.
 */
export async function putPrimaryBack(
  ctx: StepContext,
  primary: NodeName,
  others: readonly NodeName[],
): Promise<void> {
  await refuseBesideWriter(ctx, primary, others)
  const node = ctx.on(primary)
  let facts = await look(ctx, primary)
  const { recoveryConf } = capabilitiesOf(majorOf(facts))
  const { dataDir } = node.settings.postgres
  await node.output(
    shellScript('remove the standby signal', removeSignalScript, [dataDir, recoveryConf ? 'x' : '']),
  )
  facts = await look(ctx, primary)
  if (isServing(facts)) return
  await node.closeSql()
  if (facts.postmaster?.isAlive === true) {
    const service = serviceOf(node, facts, binDirectoryOf(facts))
    if (facts.instance !== null) await node.run(service.stop, { timeoutMs: ctx.timeoutMs })
    await endPostmaster(ctx, primary, facts.postmaster.pid, patienceMs)
  }
  await start(ctx, await look(ctx, primary))
}

async function start(ctx: StepContext, facts: NodeFacts): Promise<void> {
  const node = ctx.on(facts.name)
  const service = serviceOf(node, facts, binDirectoryOf(facts))
  // After a crash it recovers first, which may take longer than a wait for a state; what it does is bounded by its WAL.
  const result = await runUnasked(node, facts, service.start, {
    timeoutMs: Math.max(ctx.timeoutMs, 600_000),
  })
  if (result.status !== 0) throw startFailed(facts.name, service, result.stderr || result.stdout)
  await awaitState(ctx, `${facts.name} accepts writes again`, async () =>
    isServing(await look(ctx, facts.name)) ? true : undefined,
  )
}

const isServing = ({ instance }: NodeFacts): boolean => instance !== null && !instance.isInRecovery

async function refuseBesideWriter(
  ctx: StepContext,
  primary: NodeName,
  others: readonly NodeName[],
): Promise<void> {
  const facts = await Promise.all(others.map((name) => surveyNode(ctx.on(name))))
  const writer = facts.find((one) => isServing(one))
  if (writer === undefined) return
  throw new ReplctlError('cannot-abort', `${primary} cannot get its post back: ${writer.name} leads`, {
    hint: 'The switchover only goes forward: replctl resume',
    node: writer.name,
  })
}
