import { withCluster } from './lib/cluster.mjs'
import { alternating, replctl } from './lib/measure.mjs'
import { row } from './lib/report.mjs'

/** `status` of three nodes beside one `ssh host true`. */
export async function bench() {
  await withCluster({}, async ({ cluster, hosts }) => {
    const [own, ssh] = await alternating(
      9,
      () => replctl(cluster, ['status']),
      async () => void (await hosts.ssh('pg1', 'true')),
    )
    row('status of 3 nodes', own, 'ssh host true', ssh, own / ssh, 3)
  })
}
