import type { Reach } from '../cluster/doctor-facts.ts'
import type { NodeFacts } from '../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import { passfileOf } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { buildConninfo } from '../postgres/conninfo.ts'
import type { Node } from './node.ts'

export interface ReachWish {
  readonly inventory: Inventory
  readonly from: Node
  readonly facts: NodeFacts
  readonly to: NodeSettings
  /** The instance over there runs, so that a login can be tried where there is a passfile. */
  readonly isRunning: boolean
}

/** Tries to reach another node's PostgreSQL from this node's host, with psql: name, route, port, and the login itself. */
export async function tryReach({ inventory, from, facts, to, isRunning }: ReachWish): Promise<Reach> {
  const isLogin = isRunning && facts.hasPassfile
  const { port } = to.postgres
  const conninfo = buildConninfo({
    host: to.address,
    port: String(port),
    user: inventory.replication.user,
    ...(isLogin
      ? { replication: 'true', passfile: passfileOf(facts.home, from.settings) }
      : { dbname: 'postgres', passfile: '/dev/null' }),
    connect_timeout: '2',
    application_name: 'replctl',
  })
  const sql = isLogin ? 'IDENTIFY_SYSTEM' : 'SELECT 1'
  const script = '"$1/psql" -X -A -t -w -d "$2" -c "$3" </dev/null'
  const reach = { from: from.name, to: to.name, address: to.address, port, isLogin }
  try {
    const command = shellScript(`reach ${to.name}`, script, [facts.binaries?.directory ?? '', conninfo, sql])
    const result = await from.run(command, { timeoutMs: 4_000 })
    const said = result.stderr.trim().replaceAll(/\s*\n\s*/g, ' ')
    return { ...reach, said, outcome: result.status === 0 ? 'logged-in' : readOutcome(said, result.status) }
  } catch {
    return { ...reach, said: 'Nothing came back within 4 s.', outcome: 'silent' }
  }
}

/** What psql says under LC_ALL=C when it cannot log in. */
export function readOutcome(said: string, status: number | null): Reach['outcome'] {
  if (status === 126 || status === 127) return 'no-psql'
  if (/could not translate host name/.test(said)) return 'unresolved'
  if (/FATAL:|no password supplied|password authentication|authentication method|no pg_hba\.conf/.test(said))
    return 'rejected'
  if (/Connection refused/.test(said)) return 'refused'
  if (/timeout expired|timed out|No route to host|unreachable/.test(said)) return 'silent'
  return 'answers'
}
