import type { Hosts } from '../kit/hosts.ts'

/** Ids of ledger rows that salvages on a host wrote out as inserted (or as the new state of an update). */
export async function readSalvagedIds(hosts: Hosts, host: string): Promise<ReadonlySet<number>> {
  const script = 'find ~postgres/.replctl -name rows.jsonl -exec cat {} + 2>/dev/null; :'
  const { stdout } = await hosts.exec(host, script)
  const ids = new Set<number>()
  for (const line of stdout.split('\n').filter(Boolean)) {
    const change = JSON.parse(line) as { table: string; new: { id?: number | string } | null }
    if (change.table === 'ledger' && change.new?.id !== undefined) ids.add(Number(change.new.id))
  }
  return ids
}
