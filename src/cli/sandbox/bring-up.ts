import { commonRecord } from '../../cluster/record.ts'
import { observeTopology, type Topology } from '../../cluster/topology.ts'
import { Secret } from '../../command.ts'
import type { StepReport } from '../../engine/events.ts'
import { exitCodes } from '../../errors.ts'
import { surveyNodes } from '../../node/survey.ts'
import { planText } from '../../report/plan.ts'
import { ensureSandboxRole } from '../../steps/ensure-sandbox-role.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { operate, paintOf } from '../operation.ts'
import * as addStandby from '../runs/add-standby.ts'
import * as initPrimary from '../runs/init-primary.ts'
import { ensurePassword, readPassword, sandboxRole } from './folder.ts'
import { callOn, observeSandbox } from './observe-sandbox.ts'
import type { SandboxPlace } from './place.ts'
import { setAsideUnknownWrites } from './set-aside.ts'

/** One of the commands that make a sandbox; null where there is nothing for it to do. */
type Part = (call: Call, place: SandboxPlace, steps: StepReport[]) => Promise<Answer | null>

/** Has every node of the sandbox run and stream, by the commands that an operator would use, and observes it. */
export async function bringUp(
  call: Call,
  place: SandboxPlace,
  before: readonly StepReport[] = [],
): Promise<Answer> {
  const steps = [...before]
  const parts: Answer[] = []
  for (const part of [makePrimary, makeRole, makeStandbys]) {
    const answer = await part(call, place, steps)
    if (answer === null) continue
    parts.push(answer)
    steps.push(...stepsIn(answer))
    if (answer.exitCode !== exitCodes.ok) break
  }
  const seen = await observeSandbox(call, place)
  const numbered = steps.map((step, index) => ({ ...step, n: index + 1 }))
  const result = { ...seen.result, steps: numbered }
  const changed = parts.some((part) => part.changed) || steps.some((step) => step.state === 'applied')
  const failed = parts.find((part) => part.exitCode !== exitCodes.ok)
  if (failed !== undefined) return { ...failed, changed, result, text: '' }
  if (call.flags.isDryRun) {
    return {
      ...seen,
      exitCode: exitCodes.ok,
      result,
      problems: [],
      text: planText(numbered, paintOf(call, 'out')),
    }
  }
  return { ...seen, changed, result, problems: [...seen.problems, ...parts.flatMap((part) => part.problems)] }
}

/** The steps that a command tells of. */
export function stepsIn(answer: Answer): readonly StepReport[] {
  return (answer.result as { readonly steps?: readonly StepReport[] } | null)?.steps ?? []
}

/** Where no node leads: starts the one that led last, or makes the first one. */
const makePrimary: Part = async (call, place) => {
  const { topology, ledLast } = await look(call, place)
  if (topology.writers.length > 0) return null
  const node = ledLast ?? topology.nodes[0]?.settings.name
  return await initPrimary.run(callOn(call, place, { command: 'init primary', args: [node] }))
}

const makeRole: Part = async (call, place) => {
  const inner = callOn(call, place)
  const password = new Secret(await (call.flags.isDryRun ? readPassword : ensurePassword)(place))
  const session = await openCluster(inner)
  try {
    return await operate(inner, {
      session,
      wish: {},
      decide: ({ topology }) => {
        const primary = topology.primary ?? session.inventory.nodes[0]!.name
        return { plan: ensureSandboxRole(primary, sandboxRole, password) }
      },
    })
  } finally {
    await session.close()
  }
}

const makeStandbys: Part = async (call, place, steps) => {
  const { topology } = await look(call, place)
  const others = topology.nodes
    .map(({ settings }) => settings.name)
    .filter((name) => name !== topology.primary)
  if (topology.primary === null || others.length === 0) return null
  if (!call.flags.isDryRun) steps.push(...(await setAsideUnknownWrites(topology, place)))
  return await addStandby.run(callOn(call, place, { command: 'add-standby', args: [others] }))
}

async function look(
  call: Call,
  place: SandboxPlace,
): Promise<{ topology: Topology; ledLast: string | undefined }> {
  const session = await openCluster(callOn(call, place))
  try {
    const survey = await surveyNodes([...session.nodes.values()])
    return { topology: observeTopology(session.inventory, survey), ledLast: commonRecord(survey)?.primary }
  } finally {
    await session.close()
  }
}
