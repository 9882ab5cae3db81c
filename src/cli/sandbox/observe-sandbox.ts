import { diagnose } from '../../cluster/diagnose.ts'
import { observeTopology } from '../../cluster/topology.ts'
import { quoteForShell } from '../../command.ts'
import { exitCodes } from '../../errors.ts'
import { surveyNodes } from '../../node/survey.ts'
import { statusJson, statusText } from '../../report/status.ts'
import { columns } from '../../report/table.ts'
import { openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { paintOf } from '../operation.ts'
import { inventoryOf, urlOf } from './folder.ts'
import type { SandboxPlace } from './place.ts'

/** The same call for a real cluster's command, on the sandbox's inventory. */
export function callOn(call: Call, place: SandboxPlace, changes: Partial<Call> = {}): Call {
  return { ...call, args: [], options: {}, ...changes, flags: { ...call.flags, config: inventoryOf(place) } }
}

const shellWord = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : quoteForShell(text))

/** The sandbox as observed: as `status`, with its folder, its inventory, and a URL for each node. */
export async function observeSandbox(
  call: Call,
  place: SandboxPlace,
): Promise<Answer & { readonly result: object }> {
  const session = await openCluster(callOn(call, place))
  try {
    const { inventory } = session
    const topology = observeTopology(inventory, await surveyNodes([...session.nodes.values()]))
    const problems = diagnose(inventory, topology)
    const status = statusJson(inventory, topology)
    const urls = new Map(
      inventory.nodes.map(({ name, postgres }) => [name as string, urlOf(place, postgres.port)]),
    )
    const paint = paintOf(call, 'out')
    const places = [
      ['folder', place.dir],
      ['inventory', inventory.path],
      ...[...urls].map(([name, url]) => [paint.name(name), `psql '${url}'`]),
    ]
    const how = `\nFor any other command: export REPLCTL_CONFIG=${shellWord(inventory.path)}\n`
    return {
      exitCode: problems.some((problem) => problem.severity === 'error') ? exitCodes.unhealthy : exitCodes.ok,
      changed: false,
      cluster: inventory.cluster,
      result: {
        ...status,
        nodes: status.nodes.map((node) => ({ ...node, url: urls.get(node.name) })),
        dir: place.dir,
        inventory: inventory.path,
      },
      problems,
      text: `${statusText(inventory, topology, problems, paint)}\n${columns(places)}${how}`,
    }
  } finally {
    await session.close()
  }
}
