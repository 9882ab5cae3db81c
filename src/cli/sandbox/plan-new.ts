import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { meantRoles } from '../../cluster/roles.ts'
import { Secret } from '../../command.ts'
import type { StepReport } from '../../engine/events.ts'
import { stepsOf } from '../../engine/step.ts'
import { exitCodes } from '../../errors.ts'
import { planText } from '../../report/plan.ts'
import { addStandby } from '../../runbooks/add-standby.ts'
import { ensureSandboxRole } from '../../steps/ensure-sandbox-role.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../operation.ts'
import * as initPrimary from '../runs/init-primary.ts'
import { stepsIn } from './bring-up.ts'
import { findPrograms } from './find-programs.ts'
import { createFile, inventoryOf, sandboxRole } from './folder.ts'
import { findFreePorts } from './free-ports.ts'
import { sandboxInventoryText } from './inventory-text.ts'
import type { SandboxPlace } from './place.ts'

/** What `up` would do where nothing is: from the inventory it would write, in a folder that is gone afterwards. */
export async function planNew(call: Call, place: SandboxPlace, standbys: number): Promise<Answer> {
  const binDir = await findPrograms(call, place)
  const ports = await findFreePorts(standbys + 1, place.dir)
  const mark = { made_by: 'replctl sandbox up', socket_dir: join(place.dir, 'sockets') } as const
  const folder = await mkdtemp(join(tmpdir(), 'replctl-plan-'))
  try {
    const config = join(folder, 'replctl.yaml')
    await createFile(config, sandboxInventoryText(place, { binDir, mark, ports }), 0o600)
    const inner = {
      ...call,
      command: 'init primary',
      args: [],
      options: {},
      flags: { ...call.flags, config },
    }
    const planned = await initPrimary.run(inner)
    const rest = planned.exitCode === exitCodes.ok ? await standbySteps(inner) : []
    const made = {
      node: call.io.hostName,
      title: 'make its folder and its inventory',
      state: 'planned',
      ms: 0,
    } as const
    const steps = [made, ...stepsIn(planned), ...rest].map((step, index) => ({ ...step, n: index + 1 }))
    const result = { dir: place.dir, inventory: inventoryOf(place), steps }
    return { ...planned, result, text: planText(steps, paintOf(call, 'out')) }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The steps that come once there is a primary; before that only their names are known. */
async function standbySteps(call: Call): Promise<readonly Omit<StepReport, 'n'>[]> {
  const session = await openCluster(call)
  try {
    const { inventory, templates } = session
    const [primary, ...others] = inventory.nodes
    if (primary === undefined) return []
    const role = ensureSandboxRole(primary.name, sandboxRole, new Secret(''))
    const standbys = others.map((node) => ({ node, upstream: primary, source: primary, isReclone: false }))
    const members = inventory.nodes.map(({ name }) => name)
    const plan = addStandby(
      { inventory, templates },
      {
        ...{ primary, standbys, members, confirming: members, confirmingUntilNow: [] },
        running: [primary.name],
        roles: meantRoles(inventory, { primary: primary.name, running: members }),
      },
    )
    return [role, ...(others.length === 0 ? [] : stepsOf(plan))].map(({ node, title, apply }) => ({
      ...{ node, title, state: apply === undefined ? 'satisfied' : 'planned', ms: 0 },
    }))
  } finally {
    await session.close()
  }
}
