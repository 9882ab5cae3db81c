import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { type InventoryPart, type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'

const dataDir = '/var/lib/postgresql/15/shop'
const disk = '/mnt/ssd'

describeOnHosts('P-54: a data directory that is a link to another disk', () => {
  let hosts: TestHosts
  let cluster: TestCluster
  const patience = { timeoutMs: 300_000 }
  // PostgreSQL does not start with it: what was cloned is taken back.
  const failing: InventoryPart = {
    nodes: { pg2: { parameters: { ssl: 'on', ssl_cert_file: '/nowhere.crt' } } },
  }

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin', smallDisk: { path: disk, sizeMb: 700 } }],
    })
    cluster = await TestCluster.create(hosts)
    await cluster.init()
    await cluster.server('pg1').sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS n')
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.writeInventory({})
    await shell(`rm -rf ${disk}/* && chown postgres: ${disk} && chmod 700 ${disk}`, 'root')
    await shell(`mkdir -p -m 700 ${disk}/pg/shop`)
    await linkTo(`${disk}/pg/shop`)
  })

  const shell = async (script: string, user = 'postgres') =>
    (await hosts.exec('pg2', script, { user })).stdout.trim()
  const linkTo = (place: string) => shell(`mkdir -p /var/lib/postgresql/15 && ln -sfn ${place} ${dataDir}`)
  const run = (...args: string[]) => cluster.replctl([...args, '--json'], patience)
  const told = ({ exitCode, json, stderr }: ReplctlResult) =>
    expect(
      { exit: exitCode, codes: json?.problems.map((one: { code: string }) => one.code) },
      `${JSON.stringify(json?.problems)}\n${stderr}`,
    )
  /** Where the link leads, and what lies beside it and beside what it leads to: nothing that was moved aside. */
  const expectWhole = async (place = `${disk}/pg/shop`) => {
    expect(await shell(`readlink ${dataDir}; cat ${place}/PG_VERSION`)).toBe(`${place}\n15`)
    expect(
      await shell(`ls -d ${dataDir}.replctl-* ${disk}.replctl-* ${disk}/pg/*.replctl-* 2>/dev/null; :`),
    ).toBe('')
    expect(await cluster.server('pg2').sqlValue('SELECT count(*) FROM t')).toBe(1000)
    expect(await cluster.server('pg1').sqlValue('SELECT state FROM pg_stat_replication')).toBe('streaming')
  }
  const inode = () => shell(`stat -L -c %i ${dataDir}`)

  it('a clone that fails is taken back: what the link leads to is empty, and can be filled anew', async () => {
    await cluster.writeInventory(failing)
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 5, codes: ['start-failed'] })
    expect(await shell(`readlink ${dataDir}; ls -A ${disk}/pg ${disk}/pg/shop`)).toBe(
      `${disk}/pg/shop\n${disk}/pg:\nshop\n\n${disk}/pg/shop:`,
    )
    await cluster.writeInventory({})
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0, codes: [] })
    await expectWhole()
  })

  it('what replaces it lies on the link’s own disk, and the old data is gone from there', async () => {
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0, codes: [] })
    const first = await inode()
    told(await run('add-standby', 'pg2', '--reclone')).toMatchObject({ exit: 0, codes: [] })
    await expectWhole()
    const second = await inode()
    told(await run('rejoin', 'pg2', '--reclone')).toMatchObject({ exit: 0, codes: [] })
    await expectWhole()
    expect(new Set([first, second, await inode()]).size).toBe(3)
    // A new one that fails gives the place back to the old one.
    const third = await inode()
    await cluster.writeInventory(failing)
    told(await run('add-standby', 'pg2', '--reclone')).toMatchObject({ exit: 5, codes: ['start-failed'] })
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    await expectWhole()
    expect(await inode()).toBe(third)
    await cluster.writeInventory({})
    told(await run('remove-standby', 'pg2', '--purge')).toMatchObject({ exit: 0, codes: [] })
    expect(await shell(`readlink ${dataDir}; ls -A ${disk}/pg/shop`)).toBe(`${disk}/pg/shop`)
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0, codes: [] })
    await expectWhole()
  })

  it('a link to a whole disk is a mount point: emptied in place when asked for, and never moved', async () => {
    await shell(`rm -rf ${disk}/pg`)
    await linkTo(disk)
    told(await run('add-standby', 'pg2')).toMatchObject({ exit: 0, codes: [] })
    await expectWhole(disk)
    told(await run('rejoin', 'pg2', '--reclone')).toMatchObject({ exit: 5, codes: ['data-directory-in-use'] })
    await cluster.server('pg1').awaitStreaming('shop_pg2')
    await expectWhole(disk)
    told(await run('add-standby', 'pg2', '--reclone')).toMatchObject({
      exit: 0,
      codes: ['old-data-not-kept'],
    })
    await expectWhole(disk)
    told(await run('remove-standby', 'pg2', '--purge')).toMatchObject({ exit: 0, codes: [] })
    expect(await shell(`readlink ${dataDir}; ls -A ${disk}`)).toBe(disk)
  })
})
