/** Clusters on test hosts for the benches. */
import { mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { loadKit } from '../../lib/load-kit.mjs'

export const kit = await loadKit()

const memory = '/dev/shm'
const bytesInMemory = 4 * 2 ** 30

/** Whether the disks of a cluster's hosts can lie in memory here. */
export function hasRoomInMemory() {
  try {
    const { bavail, bsize } = statfsSync(memory)
    return bavail * bsize > bytesInMemory
  } catch {
    return false
  }
}

/** The same with the disks of the hosts in memory: what the machine's own disk takes is in no figure. */
export async function withClusterInMemory(wish, work) {
  const before = process.env.TMPDIR
  const folder = mkdtempSync(join(memory, 'replctl-bench-'))
  process.env.TMPDIR = folder
  try {
    return await withCluster(wish, work)
  } finally {
    if (before === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = before
    rmSync(folder, { recursive: true, force: true })
  }
}

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
