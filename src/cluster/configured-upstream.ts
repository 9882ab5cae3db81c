import { parseConninfo } from '../postgres/conninfo.ts'
import type { NodeFacts } from './facts.ts'
import type { Inventory } from './inventory.ts'
import type { NodeName } from './names.ts'

/** Where a standby's settings tell it to receive from. */
export function configuredUpstream(facts: NodeFacts): { host: string; port: number } | null {
  const { host, hostaddr, port } = configuredConninfo(facts)
  const at = host ?? hostaddr
  return at === undefined ? null : { host: at, port: Number(port ?? 5432) }
}

/** What a standby calls itself at its upstream, where its settings say that. */
export function configuredApplicationName(facts: NodeFacts): string | undefined {
  return configuredConninfo(facts).application_name
}

/** As which role a standby logs in to its upstream. */
export function configuredUser(facts: NodeFacts): string | undefined {
  return configuredConninfo(facts).user
}

function configuredConninfo(facts: NodeFacts): Record<string, string> {
  const fromRecoveryConf = /^\s*primary_conninfo\s*=?\s*'((?:[^']|'')*)'/m.exec(facts.recoveryConf)?.[1]
  const fromFile = /^\s*primary_conninfo\s*=?\s*'((?:[^']|'')*)'/m.exec(facts.standbyConf)?.[1]
  const text =
    facts.instance?.settings.primary_conninfo?.value ?? (fromRecoveryConf ?? fromFile)?.replaceAll("''", "'")
  return readConninfo(text ?? '')
}

/** PostgreSQL takes any text for the setting; what libpq would not understand names nobody. */
function readConninfo(text: string): Record<string, string> {
  try {
    return parseConninfo(text)
  } catch {
    return {}
  }
}

/**
 * The node of the inventory that other nodes reach at this address and port; failing that, the one that replctl logs into by that
 * name. Null where none is known by it, or several are (ports of one machine that are forwarded to others).
 */
export function nodeAt(inventory: Inventory, host: string, port: number): NodeName | null {
  const known = (key: 'address' | 'host') =>
    inventory.nodes.filter((node) => node[key] === host && node.postgres.port === port)
  const [byAddress, byHost] = [known('address'), known('host')]
  const found = byAddress.length > 0 ? byAddress : byHost
  return found.length === 1 ? (found[0]?.name ?? null) : null
}
