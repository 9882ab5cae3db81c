import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { commonRecord } from '../../cluster/record.ts'
import { observeTopology, type Topology } from '../../cluster/topology.ts'
import { Secret } from '../../command.ts'
import type { StepReport } from '../../engine/events.ts'
import { stepsOf } from '../../engine/step.ts'
import { exitCodes, ReplctlError } from '../../errors.ts'
import { surveyNodes } from '../../node/survey.ts'
import { addStandby } from '../../runbooks/add-standby.ts'
import { ensureSandboxRole } from '../../steps/ensure-sandbox-role.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { operate } from '../operation.ts'
import { findPrograms } from '../sandbox/find-programs.ts'
import {
  ensureFolder,
  ensureOwned,
  ensurePassword,
  inventoryOf,
  nodeFolder,
  nullIfMissing,
  readMark,
  replaceFile,
  sandboxRole,
} from '../sandbox/folder.ts'
import { findFreePorts } from '../sandbox/free-ports.ts'
import { sandboxInventoryText } from '../sandbox/inventory-text.ts'
import { callOn, observeSandbox } from '../sandbox/observe-sandbox.ts'
import { findPlace, type SandboxPlace } from '../sandbox/place.ts'
import { setAsideUnknownWrites } from '../sandbox/set-aside.ts'
import * as addStandbyRun from './add-standby.ts'
import * as initPrimaryRun from './init-primary.ts'

/**
 * `replctl sandbox up [--standbys N] [--dir DIR] [--fetch-postgres]`: writes an inventory of nodes on this machine, then
 * does what an operator would: init primary, add-standby. What is there already is found, so it can be repeated.
 */
export async function run(call: Call): Promise<Answer> {
  const place = await findPlace(call)
  const standbys = readStandbys(call.options.standbys)
  const known = (await readMark(place)) === null ? null : await readInventory(place)
  if (known !== null) refuseOtherSize(known, standbys, place)
  if (call.flags.isDryRun && known === null) return await planNew(call, place, standbys ?? 2)
  const steps: StepReport[] = []
  if (known === null) {
    const startedAt = performance.now()
    await makeSandbox(call, place, standbys ?? 2)
    steps.push(stepOf('make its folder and its inventory', call.io.hostName, startedAt))
  } else if (!call.flags.isDryRun) {
    await ensureFolder(place)
  }
  return await bringUp(call, place, steps)
}

async function bringUp(call: Call, place: SandboxPlace, steps: StepReport[]): Promise<Answer> {
  const parts: Answer[] = []
  const password = new Secret(await ensurePassword(place))
  for (const part of [makePrimary, makeRole(password), makeStandbys(steps)]) {
    const answer = await part(call, place)
    if (answer !== null) {
      parts.push(answer)
      steps.push(...((answer.result as { steps?: StepReport[] } | null)?.steps ?? []))
    }
    if (answer !== null && answer.exitCode !== exitCodes.ok) break
  }
  const changed =
    !call.flags.isDryRun &&
    (parts.some((part) => part.changed) || steps.some((step) => step.state === 'applied'))
  const failed = parts.find((part) => part.exitCode !== exitCodes.ok)
  const seen = await observeSandbox(call, place)
  const result = { ...seen.result, steps: steps.map((step, index) => ({ ...step, n: index + 1 })) }
  if (failed !== undefined) return { ...failed, changed, result, text: '' }
  if (call.flags.isDryRun)
    return {
      ...seen,
      exitCode: exitCodes.ok,
      result,
      problems: [],
      text: parts.map((part) => part.text).join(''),
    }
  const warnings = parts.flatMap((part) => part.problems)
  return { ...seen, changed, result, problems: [...seen.problems, ...warnings] }
}

/** Where no node leads: starts the one that led last, or makes the first one. */
async function makePrimary(call: Call, place: SandboxPlace): Promise<Answer | null> {
  const { topology, ledLast } = await look(call, place)
  if (topology.writers.length > 0) return null
  const node = ledLast ?? topology.nodes[0]?.settings.name
  return await initPrimaryRun.run(callOn(call, place, { command: 'init primary', args: [node] }))
}

const makeRole =
  (password: Secret) =>
  async (call: Call, place: SandboxPlace): Promise<Answer | null> => {
    const inner = callOn(call, place)
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

const makeStandbys =
  (steps: StepReport[]) =>
  async (call: Call, place: SandboxPlace): Promise<Answer | null> => {
    const { topology } = await look(call, place)
    if (topology.primary === null) return null
    const others = topology.nodes
      .map(({ settings }) => settings.name)
      .filter((name) => name !== topology.primary)
    if (others.length === 0) return null
    if (!call.flags.isDryRun) steps.push(...(await setAsideUnknownWrites(topology, place)))
    return await addStandbyRun.run(callOn(call, place, { command: 'add-standby', args: [others] }))
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

/** The inventory comes last: a folder without one was begun by a run that was killed, and is begun again. */
async function makeSandbox(call: Call, place: SandboxPlace, standbys: number): Promise<void> {
  const binDir = await findPrograms(call, place)
  const mark = await ensureFolder(place)
  await ensurePassword(place)
  const ports = await findFreePorts(standbys + 1, place.dir)
  for (const index of ports.keys()) await ensureOwned(nodeFolder(place, `pg${index + 1}`), place)
  await replaceFile(inventoryOf(place), sandboxInventoryText(place, { binDir, mark, ports }), 0o644)
}

/** What `up` would do where nothing is: its own inventory, in a folder that is gone afterwards. */
async function planNew(call: Call, place: SandboxPlace, standbys: number): Promise<Answer> {
  const binDir = await findPrograms(call, place)
  const ports = await findFreePorts(standbys + 1, place.dir)
  const mark = { made_by: 'replctl sandbox up', socket_dir: '/tmp' } as const
  const folder = await mkdtemp(join(tmpdir(), 'replctl-plan-'))
  try {
    const config = join(folder, 'replctl.yaml')
    await replaceFile(config, sandboxInventoryText(place, { binDir, mark, ports }), 0o600)
    const inner = {
      ...call,
      command: 'init primary',
      args: [],
      options: {},
      flags: { ...call.flags, config },
    }
    const planned = await initPrimaryRun.run(inner)
    const first = (planned.result as { steps?: StepReport[] } | null)?.steps ?? []
    const rest = planned.exitCode === exitCodes.ok ? await standbySteps(inner) : []
    const made = {
      node: call.io.hostName,
      title: 'make its folder and its inventory',
      state: 'planned',
      ms: 0,
    }
    const steps = [made, ...first, ...rest].map((step, index) => ({ ...step, n: index + 1 }))
    const tail = rest.map((step) => `${step.node}: ${step.title}\n`).join('')
    return {
      ...planned,
      result: { dir: place.dir, inventory: inventoryOf(place), steps },
      text: `${planned.text}${tail}`,
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The steps that come once there is a primary; before that nothing can be said of them. */
async function standbySteps(call: Call): Promise<readonly Omit<StepReport, 'n'>[]> {
  const session = await openCluster(call)
  try {
    const { inventory, templates } = session
    const [primary, ...others] = inventory.nodes
    if (primary === undefined || others.length === 0) return []
    const plan = addStandby(
      { inventory, templates },
      {
        primary,
        standbys: others.map((node) => ({ node, upstream: primary, source: primary, isReclone: false })),
        members: inventory.nodes.map(({ name }) => name),
        running: [primary.name],
      },
    )
    const steps = [ensureSandboxRole(primary.name, sandboxRole, new Secret('')), ...stepsOf(plan)]
    return steps.map(({ node, title, apply }) => ({
      node,
      title,
      state: apply ? 'planned' : 'satisfied',
      ms: 0,
    }))
  } finally {
    await session.close()
  }
}

function readStandbys(given: unknown): number | undefined {
  if (given === undefined) return undefined
  if (/^\d{1,2}$/.test(String(given)) && Number(given) <= 16) return Number(given)
  throw new ReplctlError('usage', `--standbys: ${JSON.stringify(given)} is not a number from 0 to 16`)
}

/** Number of nodes of the sandbox that is there; null where its inventory was never written. */
async function readInventory(place: SandboxPlace): Promise<number | null> {
  const text = await readFile(inventoryOf(place), 'utf8').catch(nullIfMissing)
  return text === null ? null : [...text.matchAll(/^ {2}pg\d+: \{ host: local/gm)].length
}

function refuseOtherSize(nodes: number, standbys: number | undefined, { dir }: SandboxPlace): void {
  if (standbys === undefined || standbys === nodes - 1) return
  throw new ReplctlError(
    'sandbox-unavailable',
    `the sandbox in ${dir} has ${nodes - 1} standbys, not ${standbys}`,
    {
      hint: 'End it first: replctl sandbox down. Or name another folder with --dir.',
    },
  )
}

function stepOf(title: string, node: string, startedAt: number): StepReport {
  return { n: 1, node, title, state: 'applied', ms: Math.round(performance.now() - startedAt) }
}
