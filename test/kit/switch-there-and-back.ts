import { expect } from 'vitest'
import type { TestCluster } from './test-cluster.ts'

/** Two switchovers on pg1, pg2 and pg3, from pg1 and back to it: nothing is lost, all stream, and each has its slot. */
export async function switchThereAndBack(cluster: TestCluster): Promise<void> {
  for (const [primary, ...standbys] of [
    ['pg2', 'pg1', 'pg3'],
    ['pg1', 'pg2', 'pg3'],
  ] as const) {
    const { result } = (await cluster.succeed(['switchover', primary], { timeoutMs: 600_000 })).json
    expect(result).toMatchObject({ new_primary: primary, lost_bytes: 0 })
    const server = cluster.server(primary)
    for (const host of standbys) await server.awaitStreaming(`shop_${host}`)
    expect(await server.sqlValue('SELECT count(*) FROM pg_replication_slots')).toBe(2)
  }
}
