import { existsSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import type { Topology } from '../../cluster/topology.ts'
import { refusalToDiscard } from '../../cluster/way-back.ts'
import type { StepReport } from '../../engine/events.ts'
import type { SandboxPlace } from './place.ts'
import { endProcesses } from './sandbox-processes.ts'

/**
 * A former primary may hold what nobody else has: its data directory is moved aside, and stays in the sandbox's folder
 * until `sandbox down`, before the node is cloned anew.
 */
export async function setAsideUnknownWrites(
  topology: Topology,
  place: SandboxPlace,
): Promise<readonly StepReport[]> {
  const primary = topology.nodes.find(({ settings }) => settings.name === topology.primary)?.facts
  const steps: StepReport[] = []
  for (const { facts, settings } of topology.nodes) {
    if (primary === undefined || facts.name === primary.name || facts.dataDirectoryState !== 'instance')
      continue
    if (refusalToDiscard(facts, primary) === null) continue
    const startedAt = performance.now()
    const { dataDir } = settings.postgres
    await endProcesses(dataDir, place)
    let number = 1
    while (existsSync(`${dataDir}.old-${number}`)) number++
    await rename(dataDir, `${dataDir}.old-${number}`)
    const title = 'move aside the data directory of a former primary: it may hold what nobody else has'
    steps.push({
      n: 0,
      node: settings.name,
      title,
      state: 'applied',
      ms: Math.round(performance.now() - startedAt),
    })
  }
  return steps
}
