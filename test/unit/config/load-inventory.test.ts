import { execFileSync, spawn } from 'node:child_process'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { loadInventory } from '../../../src/config/load-inventory.ts'
import { failureOf, loadText, temporaryFolder, withMore, withNodes } from './inventory-file.ts'

const contractExample = `
cluster: shop
postgres:
  version: 15
  bin_dir: /usr/lib/postgresql/15/bin
  data_dir: /var/lib/postgresql/15/shop
  port: 5432
  os_user: postgres
  database: postgres
  service: auto
  parameters:
    shared_buffers: 256MB
  hba:
    - host all all 10.0.0.0/8 scram-sha-256
ssh:
  user: postgres
  port: 22
  identity_file: ~/.ssh/id_ed25519
  config_file: ~/.ssh/config
  known_hosts: ~/.ssh/known_hosts
  host_key_policy: strict
  connect_timeout: 5s
replication:
  user: replicator
  password_file: ./replicator.pw
  mode: async
  sync_standbys: 1
  slots: true
  max_slot_wal_keep_size: 10GB
  max_candidate_lag: 16MB
archive:
  host: backup1
  user: postgres
  port: 22
  dir: /var/lib/replctl/shop
  mode: push
  compression: auto
nodes:
  pg1: { host: 10.0.0.11 }
  pg2: { host: 10.0.0.12, priority: 100 }
  pg3: { host: 10.0.0.13, upstream: pg2, delay: 1h, promotable: false, ssh: { user: admin }, data_dir: /data/pg }
  pg4: { host: bastion-name, address: 10.0.0.14 }
hooks:
  on_event: ./notify.sh
fence:
  command: ./fence.sh {node}
`

describe('a whole inventory', () => {
  test('is read as written', async () => {
    const inventory = await loadText(contractExample, { files: { 'replicator.pw': 'secret\n' } })
    const [pg1, pg2, pg3, pg4] = inventory.nodes
    expect(inventory).toMatchObject({ cluster: 'shop', folder: dirname(inventory.path) })
    expect(inventory).toMatchObject({ fenceCommand: './fence.sh {node}', onEvent: './notify.sh' })
    expect(pg1).toEqual({
      name: 'pg1',
      host: '10.0.0.11',
      address: '10.0.0.11',
      postgres: {
        version: 15,
        binDir: '/usr/lib/postgresql/15/bin',
        dataDir: '/var/lib/postgresql/15/shop',
        port: 5432,
        osUser: 'postgres',
        database: 'postgres',
        service: 'auto',
        parameters: { shared_buffers: '256MB' },
        hba: ['host all all 10.0.0.0/8 scram-sha-256'],
      },
      ssh: {
        user: 'postgres',
        port: 22,
        identityFile: '/home/dba/.ssh/id_ed25519',
        configFile: '/home/dba/.ssh/config',
        knownHosts: '/home/dba/.ssh/known_hosts',
        hostKeyPolicy: 'strict',
        connectTimeoutMs: 5000,
      },
      upstream: undefined,
      delayMs: 0,
      priority: 0,
      promotable: true,
      slotName: 'shop_pg1',
      applicationName: 'shop_pg1',
      stateDir: '.replctl/shop',
    })
    expect(pg2).toMatchObject({ priority: 100 })
    expect(pg3).toMatchObject({ upstream: 'pg2', delayMs: 3_600_000, promotable: false })
    expect(pg3).toMatchObject({
      ssh: { user: 'admin', port: 22 },
      postgres: { dataDir: '/data/pg', version: 15 },
    })
    expect(pg4).toMatchObject({ host: 'bastion-name', address: '10.0.0.14' })
    expect(inventory.replication.password?.reveal()).toBe('secret')
    expect(inventory.replication).toMatchObject({
      user: 'replicator',
      mode: 'async',
      syncStandbys: 1,
      slots: true,
      maxSlotWalKeepSize: '10GB',
      maxCandidateLagBytes: 16 * 1024 * 1024,
    })
    expect(inventory.archive).toMatchObject({
      node: undefined,
      host: 'backup1',
      address: 'backup1',
      mode: 'push',
    })
  })

  test('needs little: the rest has defaults', async () => {
    const inventory = await loadText(withNodes('  pg1: { host: a }'))
    expect(inventory.archive).toBeUndefined()
    expect(inventory.fenceCommand).toBeUndefined()
    expect(inventory.onEvent).toBeUndefined()
    expect(inventory.replication).toEqual({
      user: 'replicator',
      password: undefined,
      mode: 'async',
      syncStandbys: 1,
      slots: true,
      maxSlotWalKeepSize: '10GB',
      maxCandidateLagBytes: 16 * 1024 * 1024,
    })
    expect(inventory.nodes[0]?.postgres).toEqual({
      version: undefined,
      binDir: undefined,
      dataDir: '/data',
      port: 5432,
      osUser: 'postgres',
      database: 'postgres',
      service: 'auto',
      parameters: {},
      hba: [],
    })
    expect(inventory.nodes[0]?.ssh).toEqual({
      user: undefined,
      port: undefined,
      identityFile: undefined,
      configFile: undefined,
      knownHosts: undefined,
      hostKeyPolicy: 'strict',
      connectTimeoutMs: 5000,
    })
  })

  test.each([
    ['a byte order mark', (text: string) => `\ufeff${text}`],
    ['Windows line ends', (text: string) => text.replaceAll('\n', '\r\n')],
    ['no newline at its end', (text: string) => text.trimEnd()],
    ['a document start', (text: string) => `---\n${text}`],
  ])('may have %s', async (_, change) => {
    const inventory = await loadText(change(withNodes('  pg1: { host: a }')))
    expect(inventory.nodes[0]?.host).toBe('a')
  })

  test('may be JSON, for JSON is YAML', async () => {
    const text = JSON.stringify({ cluster: 'shop', nodes: { pg1: { host: 'a', data_dir: '/data' } } })
    expect((await loadText(text)).nodes).toHaveLength(1)
  })
})

describe("a node's own settings", () => {
  test('may be given directly or under postgres and ssh, and win over the common ones', async () => {
    const { nodes } = await loadText(`
cluster: shop
postgres: { data_dir: /data, parameters: { work_mem: 4MB, fsync: on }, hba: [local all all peer] }
ssh: { user: admin, connect_timeout: 2 }
nodes:
  pg1:
    host: a
    port: 5433
    postgres: { os_user: pg, parameters: { Work_Mem: 8MB } }
    parameters: { jit: false }
    hba: [host all all samenet md5]
    ssh: { port: 2222 }
  pg2: { host: b, service: { start: up, stop: down } }
`)
    expect(nodes[0]).toMatchObject({
      postgres: { port: 5433, osUser: 'pg', dataDir: '/data' },
      ssh: { user: 'admin', port: 2222, connectTimeoutMs: 2000 },
    })
    expect(nodes[0]?.postgres.parameters).toEqual({ work_mem: '8MB', fsync: 'on', jit: 'off' })
    expect(nodes[0]?.postgres.hba).toEqual(['local all all peer', 'host all all samenet md5'])
    expect(nodes[1]?.postgres).toMatchObject({ port: 5432, parameters: { work_mem: '4MB' } })
    expect(nodes[1]?.postgres.service).toEqual({ start: 'up', stop: 'down' })
  })

  test('may come from anchors and merge keys', async () => {
    const { nodes } = await loadText(
      withNodes(`  pg1: &small { host: a, priority: 5, ssh: { user: x } }
  pg2: { <<: *small, host: b }
  pg3: { <<: [*small], host: c, priority: 7 }`),
    )
    expect(nodes.map(({ host, priority, ssh }) => [host, priority, ssh.user])).toEqual([
      ['a', 5, 'x'],
      ['b', 5, 'x'],
      ['c', 7, 'x'],
    ])
  })

  test('may be shared by hundreds of nodes', async () => {
    const more = Array.from({ length: 300 }, (_, n) => `  n${n}: { <<: *common, host: h${n} }`).join('\n')
    const { nodes } = await loadText(withNodes(`  first: &common { host: a, priority: 5 }\n${more}`))
    expect(nodes).toHaveLength(301)
  })

  test.each([
    ['true', 'on'],
    ['false', 'off'],
    ['on', 'on'],
    ['100', '100'],
    ['0.5', '0.5'],
    ['1.10', '1.10'],
    ['0770', '0770'],
    ['0x1F', '0x1F'],
    ['-1', '-1'],
    ["''", ''],
    ['"a, b"', 'a, b'],
  ])('a parameter written %s is passed on as %j', async (written, expected) => {
    const { nodes } = await loadText(withNodes(`  pg1: { host: a, parameters: { some.thing: ${written} } }`))
    expect(nodes[0]?.postgres.parameters).toEqual({ 'some.thing': expected })
  })

  test('a local node is reached by others at 127.0.0.1 unless it says otherwise', async () => {
    const { nodes } = await loadText(
      withNodes('  a: { host: local }\n  b: { host: local, address: 10.0.0.2, port: 5433, data_dir: /b }'),
    )
    expect(nodes.map((node) => node.address)).toEqual(['127.0.0.1', '10.0.0.2'])
  })

  test('one trailing slash of a path is not part of it', async () => {
    const { nodes } = await loadText(withNodes('  pg1: { host: a, data_dir: /data/pg/ }'))
    expect(nodes[0]?.postgres.dataDir).toBe('/data/pg')
  })
})

describe('names of nodes', () => {
  const long = 'n'.repeat(70)
  test.each([
    'pg-1',
    'PG.2.example.com',
    'any',
    'First',
    'N3',
    '1',
    '1.10',
    'null',
    'true',
    'parameters',
    long,
  ])('%s is allowed', async (name) => {
    const { nodes } = await loadText(withNodes(`  ${name}: { host: a }`))
    expect(nodes[0]?.name).toBe(name)
    expect(nodes[0]?.slotName.length).toBeLessThanOrEqual(63)
    expect(nodes[0]?.applicationName.length).toBeLessThanOrEqual(63)
  })

  test('stay in the order of the file, numbers too', async () => {
    const { nodes } = await loadText(
      withNodes('  b: { host: h1 }\n  10: { host: h2 }\n  2: { host: h3 }\n  a: { host: h4 }'),
    )
    expect(nodes.map((node) => node.name)).toEqual(['b', '10', '2', 'a'])
  })
})

describe('paths', () => {
  test('start in the home directory or in the folder of the inventory', async () => {
    const inventory = await loadText(
      withMore('ssh: { identity_file: keys/id, config_file: ~/c, known_hosts: /etc/k }'),
    )
    expect(inventory.nodes[0]?.ssh).toMatchObject({
      identityFile: join(inventory.folder, 'keys/id'),
      configFile: '/home/dba/c',
      knownHosts: '/etc/k',
    })
  })
})

describe('the archive', () => {
  test('on a node is reached as the node is', async () => {
    const { archive } = await loadText(`
cluster: shop
postgres: { data_dir: /data, os_user: pg }
ssh: { user: admin }
nodes: { pg1: { host: a, address: 10.0.0.1, ssh: { port: 2222 } } }
archive: { host: pg1, dir: /archive/ }
`)
    expect(archive).toMatchObject({
      node: 'pg1',
      host: 'a',
      address: '10.0.0.1',
      user: 'pg',
      port: 2222,
      dir: '/archive',
      mode: 'push',
      compression: 'auto',
      ssh: { user: 'admin', port: 2222 },
    })
  })

  test('on a node: its port is for the nodes, replctl logs in as it does into that node', async () => {
    const { archive } = await loadText(`
cluster: shop
postgres: { data_dir: /data }
nodes: { pg1: { host: gw.example.com, address: 10.0.0.11, ssh: { port: 2201 } } }
archive: { host: pg1, port: 22, dir: /archive }
`)
    expect(archive).toMatchObject({
      ...{ host: 'gw.example.com', address: '10.0.0.11', port: 22 },
      ssh: { port: 2201 },
    })
  })

  test('on a host of its own is logged into as its user, unless its ssh says otherwise', async () => {
    const block =
      'ssh: { user: admin }\narchive: { host: backup.example.com, user: keeper, port: 2200, dir: /archive'
    const own = await loadText(withMore(`${block} }`))
    expect(own.archive).toMatchObject({
      node: undefined,
      host: 'backup.example.com',
      address: 'backup.example.com',
    })
    expect(own.archive).toMatchObject({ user: 'keeper', port: 2200, ssh: { user: 'keeper', port: 2200 } })
    const other = await loadText(withMore(`${block}, address: 10.0.0.9, ssh: { user: root } }`))
    expect(other.archive).toMatchObject({
      address: '10.0.0.9',
      user: 'keeper',
      ssh: { user: 'root', port: 2200 },
    })
  })

  test('may be this machine', async () => {
    const { archive } = await loadText(withMore('archive: { host: local, dir: /archive }'))
    expect(archive).toMatchObject({
      node: undefined,
      host: 'local',
      address: '127.0.0.1',
      user: 'postgres',
      port: 22,
    })
  })
})

describe('the replication password', () => {
  const text = withMore('replication: { password_file: pw }')
  test.each([
    ['secret', 'secret'],
    ['secret\n', 'secret'],
    ['secret\r\n', 'secret'],
    [' pass wörd \n', ' pass wörd '],
  ])('from a file with %j is %j', async (content, expected) => {
    const { replication } = await loadText(text, { files: { pw: content } })
    expect(replication.password?.reveal()).toBe(expected)
  })

  test('from the environment goes first, the file need not be there then', async () => {
    const { replication } = await loadText(text, { env: { REPLCTL_REPLICATION_PASSWORD: 'from env' } })
    expect(replication.password?.reveal()).toBe('from env')
  })

  test('is not shown when the inventory is printed', async () => {
    const inventory = await loadText(text, { files: { pw: 'secret' } })
    expect(JSON.stringify(inventory)).not.toContain('secret')
  })

  test.each([
    ['empty', ''],
    ['more than one line', 'a\nb'],
  ])('from the environment is refused: %s', async (why, value) => {
    const error = await failureOf(loadText(text, { env: { REPLCTL_REPLICATION_PASSWORD: value } }))
    expect(error.code).toBe('password-invalid')
    expect(error.message).toContain(why)
  })
})

describe('a pipe', () => {
  const options = { env: {}, home: '/home/dba' }
  const makePipe = async () => {
    const path = join(await temporaryFolder(), 'pipe')
    execFileSync('mkfifo', [path])
    return path
  }

  test('is read to its end, also where its writer comes late and writes slowly', async () => {
    const path = await makePipe()
    const script =
      'sleep 0.1; exec > "$1"; printf "cluster: shop\\npostgres: {data_dir: /srv/pg}\\n"; sleep 0.1; printf "nodes: {pg1: {host: a}}\\n"'
    const writer = spawn('sh', ['-c', script, 'sh', path])
    const inventory = await loadInventory(path, options)
    expect(inventory.cluster).toBe('shop')
    expect(inventory.nodes.map(({ name }) => name)).toEqual(['pg1'])
    writer.kill()
    // `resume` reads it once more, when nobody writes any more.
    expect((await loadInventory(path, options)).cluster).toBe('shop')
  })

  test('that nobody writes into holds up no signal', async () => {
    const path = await makePipe()
    const error = await failureOf(loadInventory(path, { ...options, signal: AbortSignal.timeout(50) }))
    expect(error).toMatchObject({ code: 'interrupted', detail: 'Nothing was changed.' })
  })
})

describe('a file that cannot be read', () => {
  const options = { env: {}, home: '/home/dba' }
  test('is missing', async () => {
    const path = join(await temporaryFolder(), 'replctl.yaml')
    const error = await failureOf(loadInventory(path, options))
    expect(error).toMatchObject({ code: 'inventory-missing', message: `no inventory ${path}`, exitCode: 2 })
    expect(error.hint).toContain('replctl new')
  })

  test('is a directory', async () => {
    const path = join(await temporaryFolder(), 'replctl.yaml')
    await mkdir(path)
    const error = await failureOf(loadInventory(path, options))
    expect(error).toMatchObject({
      code: 'inventory-invalid',
      message: `could not read ${path}`,
      detail: 'It is a directory.',
    })
  })

  test('is a link that leads nowhere', async () => {
    const path = join(await temporaryFolder(), 'replctl.yaml')
    await symlink('/nonexistent/shop.yaml', path)
    const error = await failureOf(loadInventory(path, options))
    expect(error).toMatchObject({
      code: 'inventory-invalid',
      message: `could not read ${path}`,
      detail: 'It is a link to /nonexistent/shop.yaml, which is not there.',
    })
  })

  test.each(['/dev/zero', 'a long file'])('is larger than any inventory: %s', async (kind) => {
    const path = kind.startsWith('/') ? kind : join(await temporaryFolder(), 'replctl.yaml')
    if (path !== kind) await writeFile(path, Buffer.alloc(16 * 1024 * 1024 + 1, '#'))
    const error = await failureOf(loadInventory(path, options))
    expect(error).toMatchObject({ code: 'inventory-invalid', detail: 'It is larger than 16 MiB.' })
  })

  test.skipIf(process.getuid?.() === 0)('is not permitted', async () => {
    const path = join(await temporaryFolder(), 'replctl.yaml')
    await writeFile(path, 'cluster: shop', { mode: 0o000 })
    const error = await failureOf(loadInventory(path, options))
    expect(error).toMatchObject({ code: 'inventory-invalid', detail: 'The system says EACCES.' })
  })

  test('is not UTF-8', async () => {
    const error = await failureOf(loadText(Uint8Array.of(0x63, 0xff, 0xfe, 0x00)))
    expect(error).toMatchObject({ code: 'inventory-invalid', message: 'replctl.yaml is not UTF-8 text' })
  })
})
