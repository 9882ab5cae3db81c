/** Clusters on test hosts for the benches. */
import { loadKit } from '../../lib/load-kit.mjs'

export const kit = await loadKit()

/** Builds a cluster on hosts of its own, hands it to `work`, and leaves nothing behind. `standbys: []`: only its primary. */
export async function withCluster(
  { names = ['pg1', 'pg2', 'pg3'], standbys = names.slice(1), parameters = {}, ...inventory },
  work,
) {
  const hosts = await kit.TestHosts.create({ hosts: names.map((name) => ({ name })) })
  try {
    const subnet = hosts.addressOf('pg1').replace(/\.\d+$/, '.0/24')
    const cluster = await kit.TestCluster.create(hosts, {
      inventory: {
        ...inventory,
        postgres: {
          parameters,
          hba: [`host all bench ${subnet} trust`, `host all,replication repmgr ${subnet} trust`],
        },
      },
    })
    await cluster.init()
    for (let first = 0; first < standbys.length; first += 4)
      await cluster.addStandbys(standbys.slice(first, first + 4))
    return await work({ hosts, cluster })
  } finally {
    await hosts.destroy()
  }
}
