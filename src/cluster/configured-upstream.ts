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

/** The node of the inventory that other nodes reach at this address and port. */
export function nodeAt(inventory: Inventory, host: string, port: number): NodeName | null {
  const found = inventory.nodes.find(
    (node) => (node.address === host || node.host === host) && node.postgres.port === port,
  )
  return found?.name ?? null
}
