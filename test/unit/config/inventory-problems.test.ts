import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { failureOf, loadText, problemsOf, temporaryFolder, withMore, withNodes } from './inventory-file.ts'

const sameVersion = 'All nodes of a cluster have the same major version.'

type Case = [title: string, text: string, ...problems: string[]]

/** Each case: what it is about, the text, and every line the operator reads. */
function describeCases(title: string, cases: Case[]) {
  describe(title, () => {
    test.each(cases)('%s', async (_, text, ...expected) => {
      expect(await problemsOf(text)).toEqual(expected)
    })
  })
}

describeCases('a text that is no inventory', [
  ['empty', '', 'replctl.yaml:1:1: the file is empty. Write one to start from with: replctl new'],
  [
    'only comments',
    '# x\n',
    'replctl.yaml:1:1: the file is empty. Write one to start from with: replctl new',
  ],
  ['broken YAML', 'cluster: "shop\n', 'replctl.yaml:2:1: not valid YAML: missing closing "quote'],
  ['an INI file', '[shop]\nhost=1\n', 'replctl.yaml:2:1: not valid YAML: unexpected scalar at node end'],
  [
    'a list',
    '- pg1\n',
    'replctl.yaml:1:1: expected a map of keys and values, found a list. An inventory starts with a line such as: cluster: shop',
  ],
  [
    'prose',
    'hello there\n',
    'replctl.yaml:1:1: expected a map of keys and values, found text. An inventory starts with a line such as: cluster: shop',
  ],
  ['tabs', 'nodes:\n\tpg1: { host: a }\n', 'replctl.yaml:2:1: a tab cannot indent YAML. Indent with spaces.'],
  [
    'two documents',
    'a: 1\n---\nb: 1\n',
    'replctl.yaml:2:1: more than one YAML document. Remove the line "---".',
  ],
  [
    'a tag of its own',
    withNodes('  pg1: { host: !env HOST }'),
    'replctl.yaml:4:16: not valid YAML: unresolved tag: !env',
  ],
  [
    'an alias without an anchor',
    withNodes('  pg1: *common'),
    'replctl.yaml:4:8: nodes.pg1: unknown alias *common. Mark what it stands for with &common, further up.',
  ],
])

describeCases('aliases', [
  [
    'that multiply without end',
    `${'abcdefgh'.replaceAll(/./g, (name, index) => `${name}: &${name} [${index ? `*${'abcdefgh'[index - 1]},`.repeat(9) : 1}]\n`)}`,
    'replctl.yaml:1:1: excessive alias count indicates a resource exhaustion attack',
  ],
])

describeCases('a key', [
  [
    'unknown at the top',
    `clutser: shop\n${withNodes('  pg1: { host: a }').replace('cluster: shop\n', '')}`,
    'replctl.yaml:1:1: unknown key "clutser". Did you mean "cluster"?',
  ],
  [
    'unknown in a section',
    withMore('replication: { mod: sync }'),
    'replctl.yaml:6:16: replication: unknown key "mod". Did you mean "mode"?',
  ],
  [
    'unknown in a node',
    withNodes('  pg1: { host: a }\n  pg2:\n    hots: b'),
    'replctl.yaml:6:5: nodes.pg2: unknown key "hots". Did you mean "host"?',
  ],
  [
    "unknown in a node's ssh",
    withNodes('  pg1: { host: a, ssh: { usr: x } }'),
    'replctl.yaml:4:26: nodes.pg1.ssh: unknown key "usr". Did you mean "user"?',
  ],
  [
    'in the wrong place',
    withNodes('  pg1: { host: a, identity_file: x }'),
    'replctl.yaml:4:19: nodes.pg1: unknown key "identity_file". It belongs under "ssh".',
  ],
  [
    'like no other',
    withMore('fence: { command: x, banana: 1 }'),
    'replctl.yaml:6:22: fence: unknown key "banana". Known here: command.',
  ],
  [
    'given twice',
    withNodes('  pg1: { host: a }\n  pg1: { host: b }'),
    'replctl.yaml:5:3: nodes: duplicate key "pg1", first given on line 4. Remove one of the two.',
  ],
  [
    'given twice in two ways',
    withNodes('  pg1: { host: a, port: 1, postgres: { port: 2 } }'),
    'replctl.yaml:4:40: nodes.pg1.postgres.port: also given as nodes.pg1.port. Remove one of the two.',
  ],
  [
    'missing at the top',
    'nodes: { pg1: { host: a, data_dir: /d } }\n',
    'replctl.yaml:1:1: missing key "cluster"',
  ],
  ['missing in a node', withNodes('  pg1: {}'), 'replctl.yaml:4:3: nodes.pg1: missing key "host"'],
  ['missing in a section', withMore('archive: { host: b1 }'), 'replctl.yaml:6:1: archive: missing key "dir"'],
  [
    'missing for want of a common one',
    'cluster: shop\nnodes: { pg1: { host: a } }\n',
    'replctl.yaml:2:10: nodes.pg1: missing key "data_dir". Give it under "postgres" for all nodes, or in the node.',
  ],
  [
    'that would change the object',
    withNodes('  __proto__: { host: a }'),
    'replctl.yaml:4:3: nodes: this cannot be a key',
  ],
  [
    'that is a map',
    withNodes('  ? { a: 1 }\n  : { host: a }'),
    'replctl.yaml:4:5: nodes: this cannot be a key',
  ],
])

const nodeNameHint = 'It starts with a letter or digit and has at most 128 letters, digits, ., _ and -.'
const clusterHint = 'It starts with a small letter and has at most 31 small letters, digits, _ and -.'
const sizeForms = 'write it like 512B, 64kB, 16MB, 10GB or 1TB'
const durationForms = 'write it like 500ms, 5s, 2min, 1h30min or 1d'

describe('a value', () => {
  test.each([
    ['port: "5433"', ':4:25: nodes.pg1.port: expected a number, found "5433". Remove the quotes: 5433'],
    ['port: 0', ':4:25: nodes.pg1.port: must be at least 1, found 0'],
    ['port: 65536', ':4:25: nodes.pg1.port: must be at most 65535, found 65536'],
    ['port: 1.5', ':4:25: nodes.pg1.port: expected a whole number, found 1.5'],
    ['version: 9', ':4:28: nodes.pg1.version: must be at least 11, found 9'],
    ['upstream: 2', ':4:29: nodes.pg1.upstream: expected text, found 2. Put it in quotes: "2"'],
    [
      'promotable: "no"',
      ':4:31: nodes.pg1.promotable: expected true or false, found "no". Write true or false.',
    ],
    [
      'priority: ~',
      ':4:29: nodes.pg1.priority: expected a number, found nothing. Give it a value, or remove the key.',
    ],
    ['ssh: x', ':4:24: nodes.pg1.ssh: expected a map of keys and values, found "x"'],
    ['hba: x', ':4:24: nodes.pg1.hba: expected a list, found "x"'],
    ['delay: 5', `:4:26: nodes.pg1.delay: not a duration: "5"; ${durationForms}. Add a unit: 5s.`],
    ['delay: 5m', `:4:26: nodes.pg1.delay: not a duration: "5m"; ${durationForms}`],
    ['delay: 30d', ':4:26: nodes.pg1.delay: must be at most 24 days'],
    ['delay: true', ':4:26: nodes.pg1.delay: expected a duration, found true'],
    ['ssh: { connect_timeout: 0 }', ':4:43: nodes.pg1.ssh.connect_timeout: must be longer than 0'],
    ['address: 1.10', ':4:28: nodes.pg1.address: expected text, found 1.10. Put it in quotes: "1.10"'],
    ['upstream: 0x1F', ':4:29: nodes.pg1.upstream: expected text, found 0x1F. Put it in quotes: "0x1F"'],
    [
      'address: "[::1]"',
      ':4:28: nodes.pg1.address: "[::1]" is not a host name or IP address. Write it without brackets: "::1"',
    ],
    ['os_user: -x', ':4:28: nodes.pg1.os_user: "-x" is not a user name'],
    [
      'data_dir: data',
      ':4:29: nodes.pg1.data_dir: "data" is not an absolute path. A path on a node starts with /.',
    ],
    ['data_dir: //', ':4:29: nodes.pg1.data_dir: "//" cannot be used: it is the root of the host'],
    [
      'ssh: { known_hosts: ~bob/k }',
      `:4:39: nodes.pg1.ssh.known_hosts: "~bob/k" names another user's home. Give the path in full.`,
    ],
    ['address: a b', ':4:28: nodes.pg1.address: "a b" is not a host name or IP address'],
    [
      'address: root@a',
      ':4:28: nodes.pg1.address: "root@a" is not a host name or IP address. Give the user as ssh.user.',
    ],
    [
      'address: "a:22"',
      ':4:28: nodes.pg1.address: "a:22" is not a host name or IP address. Give a port as ssh.port (of SSH) or port (of PostgreSQL).',
    ],
    [
      'service: systmd',
      ':4:28: nodes.pg1.service: expected one of auto, pg_ctl, pg_ctlcluster, systemd, or a map of commands, found "systmd". Did you mean "systemd"?',
    ],
    ['service: { start: up }', ':4:19: nodes.pg1.service: missing key "stop"'],
    [
      'service: { strat: up, stop: down }',
      ':4:30: nodes.pg1.service: unknown key "strat". Did you mean "start"?',
    ],
    [
      'hba: [hots all all all md5]',
      ':4:25: nodes.pg1.hba[0]: unknown pg_hba.conf connection type "hots". Did you mean "host"?',
    ],
    [
      'hba: [host all all md5]',
      ':4:25: nodes.pg1.hba[0]: incomplete pg_hba.conf entry. It needs: host database user address method',
    ],
    [
      'hba: [local all all]',
      ':4:25: nodes.pg1.hba[0]: incomplete pg_hba.conf entry. It needs: local database user method',
    ],
    ['hba: ["local a b peer\\nx"]', ':4:25: nodes.pg1.hba[0]: a pg_hba.conf entry must be on one line'],
    [
      'parameters: { work_mem: [1] }',
      ':4:43: nodes.pg1.parameters.work_mem: expected text, a number, or true or false, found a list',
    ],
    [
      'parameters: { work_mem: ~ }',
      ':4:43: nodes.pg1.parameters.work_mem: expected text, a number, or true or false, found nothing',
    ],
    ['parameters: { work_mem: "a\\nb" }', ':4:43: nodes.pg1.parameters.work_mem: must be on one line'],
    [
      'parameters: { "work mem": 1 }',
      ':4:33: nodes.pg1.parameters: "work mem" is not a PostgreSQL parameter',
    ],
    [
      'parameters: { jit: 1, Jit: 2 }',
      ':4:41: nodes.pg1.parameters: parameter "Jit" is the same as "jit". Remove one of the two.',
    ],
  ])('in a node, %s', async (written, expected) => {
    expect(await problemsOf(withNodes(`  pg1: { host: a, ${written} }`))).toContain(`replctl.yaml${expected}`)
  })

  test.each([
    [
      'ssh: { host_key_policy: off }',
      ':6:25: ssh.host_key_policy: expected one of strict, accept-new, found "off"',
    ],
    ['replication: { sync_standbys: 0 }', ':6:31: replication.sync_standbys: must be at least 1, found 0'],
    [
      'replication: { mode: snyc }',
      ':6:22: replication.mode: expected one of async, sync, quorum, found "snyc". Did you mean "sync"?',
    ],
    [
      'replication: { max_candidate_lag: 16KB }',
      `:6:35: replication.max_candidate_lag: not a size: "16KB"; ${sizeForms}. Did you mean "16kB"?`,
    ],
    [
      'replication: { max_candidate_lag: 99999999TB }',
      ':6:35: replication.max_candidate_lag: too large a size: "99999999TB"; it can be at most 8191TB',
    ],
    [
      'replication: { max_slot_wal_keep_size: 10 }',
      `:6:40: replication.max_slot_wal_keep_size: not a size: "10"; ${sizeForms}. Add a unit: 10MB.`,
    ],
    [
      'replication: { user: pg_me }',
      ':6:22: replication.user: role name "pg_me" is reserved. PostgreSQL keeps names that start with pg_ for itself.',
    ],
    [
      'archive: { host: b1, dir: /a, mode: pull }',
      ':6:37: archive.mode: expected one of push, stream, found "pull". Did you mean "push"?',
    ],
    ['fence: ./fence.sh', ':6:8: fence: expected a map of keys and values, found "./fence.sh"'],
    ['fence: {}', ':6:1: fence: missing key "command"'],
    ['fence: { command: "" }', ':6:19: fence.command: must not be empty'],
    ['hooks: { on_event: [a] }', ':6:20: hooks.on_event: expected text, found a list'],
    ['hooks: { onevent: a }', ':6:10: hooks: unknown key "onevent". Did you mean "on_event"?'],
  ])('in a section, %s', async (written, expected) => {
    expect(await problemsOf(withMore(written))).toEqual([`replctl.yaml${expected}`])
  })

  test.each(['Shop', '1shop', 'shop!', 's'.repeat(32)])('cluster %s is refused', async (name) => {
    const text = withNodes('  pg1: { host: a }').replace('shop', name)
    expect(await problemsOf(text)).toEqual([
      `replctl.yaml:1:10: cluster: "${name}" is not a cluster name. ${clusterHint}`,
    ])
  })

  test.each(['-pg', '_pg', '.pg', 'pg/1', 'pg 1', 'n'.repeat(129)])('node %s is refused', async (name) => {
    const problems = await problemsOf(withNodes(`  "${name}": { host: a }`))
    expect(problems).toEqual([`replctl.yaml:4:3: nodes: "${name}" is not a node name. ${nodeNameHint}`])
  })

  test.each(['-1', '0', '512MB', '1.5GB'])('max_slot_wal_keep_size %s is allowed', async (size) => {
    const { replication } = await loadText(withMore(`replication: { max_slot_wal_keep_size: ${size} }`))
    expect(replication.maxSlotWalKeepSize).toBe(size)
  })

  test.each([
    ['1GB512MB', '1536MB'],
    ['1GB 512MB', '1536MB'],
    ['1kB1B', '1MB'],
  ])('max_slot_wal_keep_size %s is refused', async (size, sum) => {
    const [problem] = await problemsOf(withMore(`replication: { max_slot_wal_keep_size: ${size} }`))
    expect(problem).toBe(
      `replctl.yaml:6:40: replication.max_slot_wal_keep_size: not a size that PostgreSQL reads: "${size}"; write one number and one unit, like ${sum}`,
    )
  })

  test.each(['fd00::1', '10.0.0.1', 'pg-1.example.com', 'my_alias'])('host %s is allowed', async (host) => {
    expect((await loadText(withNodes(`  pg1: { host: "${host}" }`))).nodes[0]?.host).toBe(host)
  })
})

describeCases('nodes', [
  [
    'none',
    'cluster: shop\nnodes: {}\n',
    'replctl.yaml:2:8: nodes: at least one node is needed. Add one, e.g. pg1: { host: 10.0.0.11 }',
  ],
  [
    'a list of them',
    'cluster: shop\nnodes: [pg1]\n',
    'replctl.yaml:2:8: nodes: expected a map of keys and values, found a list',
  ],
  [
    'a name alone',
    withNodes('  pg1:'),
    'replctl.yaml:4:7: nodes.pg1: expected a map of keys and values, found nothing. Give it a value, or remove the key.',
  ],
  [
    'with the same slot name',
    withNodes('  a-b: { host: h1 }\n  a_b: { host: h2 }'),
    'replctl.yaml:5:3: nodes.a_b: nodes "a-b" and "a_b" would share the replication slot "shop_a_b". Rename one: only letters, digits and _ tell slots apart.',
  ],
  [
    'with names that differ only in case',
    withNodes('  n3: { host: h1 }\n  N3: { host: h2 }'),
    'replctl.yaml:5:3: nodes.N3: nodes "n3" and "N3" would share the replication slot "shop_n3". Rename one: only letters, digits and _ tell slots apart.',
  ],
  [
    'that are the same instance',
    withNodes('  pg1: { host: a }\n  pg2: { host: A, data_dir: /data/ }'),
    'replctl.yaml:5:3: nodes.pg2: the same port and data directory as node "pg1" on the same host. Each node needs its own.',
  ],
  [
    'with the same data directory',
    withNodes('  pg1: { host: a }\n  pg2: { host: a, port: 5433 }'),
    'replctl.yaml:5:3: nodes.pg2: the same data directory as node "pg1" on the same host. Each node needs its own.',
  ],
  [
    'with the same port',
    withNodes('  pg1: { host: local }\n  pg2: { host: local, data_dir: /other, port: 5432 }'),
    'replctl.yaml:5:3: nodes.pg2: the same port as node "pg1" on the same host. Each node needs its own.',
  ],
  [
    'of another major version',
    withNodes('  pg1: { host: a, version: 15 }\n  pg2: { host: b, version: 16 }'),
    `replctl.yaml:5:28: nodes.pg2.version: PostgreSQL 16 cannot replicate with the 15 of node "pg1". ${sameVersion}`,
  ],
  [
    'of another major version than the common one, in the first node',
    withMore('  # none')
      .replace('{ data_dir', '{ version: 15, data_dir')
      .replace('host: a }', 'host: a, postgres: { version: 14 } }'),
    `replctl.yaml:4:40: nodes.pg1.postgres.version: PostgreSQL 14 cannot replicate with the 15 of node "pg2". ${sameVersion}`,
  ],
])

test.each([
  ['one common version', withMore('').replace('{ data_dir', '{ version: 15, data_dir')],
  ['the same in each node', withNodes('  pg1: { host: a, version: 15 }\n  pg2: { host: b, version: 15 }')],
  [
    'one that names it and one that does not',
    withNodes('  pg1: { host: a, version: 15 }\n  pg2: { host: b }'),
  ],
  [
    'a common version that no node has',
    withNodes('  pg1: { host: a, version: 16 }\n  pg2: { host: b, version: 16 }').replace(
      '{ data_dir',
      '{ version: 15, data_dir',
    ),
  ],
])('nodes with %s can be a cluster', async (_, text) => {
  expect((await loadText(text)).nodes).toHaveLength(2)
})

test('nodes behind forwarded SSH ports are different hosts', async () => {
  const text = withNodes('  pg1: { host: a, ssh: { port: 2201 } }\n  pg2: { host: a, ssh: { port: 2202 } }')
  expect((await loadText(text)).nodes).toHaveLength(2)
})

test('port 22 of SSH is the same host, said or not', async () => {
  expect(await problemsOf(withNodes('  pg1: { host: a }\n  pg2: { host: a, ssh: { port: 22 } }'))).toEqual([
    expect.stringContaining('the same port and data directory as node "pg1" on the same host'),
  ])
})

describeCases('an upstream', [
  [
    'that is no node, but nearly',
    withNodes('  pg1: { host: a }\n  pg2: { host: b, upstream: gp1 }'),
    'replctl.yaml:5:29: nodes.pg2.upstream: unknown node "gp1". Did you mean "pg1"?',
  ],
  [
    'that is no node at all',
    withNodes('  pg1: { host: a }\n  pg2: { host: b, upstream: berlin }'),
    'replctl.yaml:5:29: nodes.pg2.upstream: unknown node "berlin". Nodes are: pg1, pg2.',
  ],
  [
    'to itself',
    withNodes('  pg1: { host: a, upstream: pg1 }'),
    'replctl.yaml:4:29: nodes.pg1.upstream: a node cannot be its own upstream. Remove it: a standby without upstream follows the primary.',
  ],
  [
    'in a circle, with another that leads into it',
    withNodes(
      '  a: { host: h1, upstream: b }\n  b: { host: h2, upstream: c }\n  c: { host: h3, upstream: b }',
    ),
    'replctl.yaml:5:28: nodes.b.upstream: upstreams form a circle: b → c → b. Remove one of these upstreams: a standby without one follows the primary.',
  ],
])

describe('synchronous standbys', () => {
  const wanting = (mode: string, count: number) => `replication: { mode: ${mode}, sync_standbys: ${count} }`
  test.each(['sync', 'quorum'])('%s: more than there are other nodes is refused', async (mode) => {
    const [problem] = await problemsOf(withMore(wanting(mode, 2)))
    expect(problem).toContain(
      'replication.sync_standbys: 2 standbys cannot confirm, the cluster has only 1 besides the primary. Set it to 1 or less, or add nodes.',
    )
  })

  test('one node alone is where a cluster starts', async () => {
    const { replication } = await loadText(`${withNodes('  pg1: { host: a }')}${wanting('sync', 2)}`)
    expect(replication.syncStandbys).toBe(2)
  })

  test('as many as there are other nodes is allowed, and in async mode any number', async () => {
    expect((await loadText(withMore(wanting('quorum', 1)))).replication.syncStandbys).toBe(1)
    expect((await loadText(withMore(wanting('async', 5)))).replication.syncStandbys).toBe(5)
  })
})

describe('WAL that is streamed to the archive', () => {
  test('is kept as it is', async () => {
    const streamed = (rest: string) =>
      problemsOf(withMore(`archive: { host: b1, dir: /a, mode: stream${rest} }`))
    expect(await streamed(', compression: zstd')).toEqual([
      expect.stringContaining('archive.compression: WAL that is streamed to the archive is kept as it is'),
    ])
    expect((await loadText(withMore('archive: { host: b1, dir: /a, mode: stream }'))).archive?.mode).toBe(
      'stream',
    )
  })
})

describe('the age that the newest backup may have', () => {
  const withAge = (age: string) => withMore(`archive: { host: b1, dir: /a, max_backup_age: ${age} }`)

  test('is a duration of any length, and no limit unless it is given', async () => {
    expect((await loadText(withAge('25h'))).archive?.maxBackupAgeMs).toBe(90_000_000)
    expect((await loadText(withAge('60d'))).archive?.maxBackupAgeMs).toBe(60 * 86_400_000)
    expect((await loadText(withMore('archive: { host: b1, dir: /a }'))).archive?.maxBackupAgeMs).toBeNull()
  })

  test('needs a unit, and is more than nothing', async () => {
    expect(await problemsOf(withAge('25'))).toEqual([expect.stringContaining('Add a unit: 25h.')])
    expect(await problemsOf(withAge('0'))).toEqual([expect.stringContaining('must be more than 0')])
  })
})

describe('an archive that confirms commits', () => {
  const streamed = 'archive: { host: b1, dir: /a, mode: stream, synchronous: true }\n'

  test('has to be streamed to', async () => {
    expect(await problemsOf(withMore('archive: { host: b1, dir: /a, synchronous: true }'))).toEqual([
      expect.stringContaining(
        'archive.synchronous: only WAL that is streamed to the archive can confirm commits',
      ),
    ])
    expect((await loadText(withMore(streamed))).archive?.synchronous).toBe(true)
    expect((await loadText(withMore('archive: { host: b1, dir: /a }'))).archive?.synchronous).toBe(false)
  })

  test('is one of those that may be wanted', async () => {
    const wanting = (count: number) => `${streamed}replication: { mode: sync, sync_standbys: ${count} }\n`
    expect((await loadText(withMore(wanting(2)))).replication.syncStandbys).toBe(2)
    expect(await problemsOf(withMore(wanting(3)))).toEqual([
      expect.stringContaining('3 cannot confirm, the cluster has only 1 standbys and the archive'),
    ])
  })

  test('applies nothing, so that commits must not wait for that', async () => {
    const text = `${streamed}replication: { mode: sync }\n`
    const applied = 'postgres: { data_dir: /d, parameters: { Synchronous_Commit: remote_apply } }\n'
    const problems = await problemsOf(withMore(text).replace(/^postgres:.*\n/m, applied))
    expect(problems).toEqual([expect.stringContaining('the archive applies nothing')])
  })
})

describe("the archive's host", () => {
  test('that looks like a node is refused', async () => {
    expect(await problemsOf(withMore('archive: { host: pg3, dir: /a }'))).toEqual([
      'replctl.yaml:6:18: archive.host: unknown node "pg3". Did you mean "pg1"? If it is a machine of its own, give its address too.',
    ])
  })

  test.each(['host: pg3, address: 10.0.0.9', 'host: backup1', 'host: a', 'host: 10.1.2.3'])(
    '%s is its own',
    async (host) => {
      expect((await loadText(withMore(`archive: { ${host}, dir: /a }`))).archive?.node).toBeUndefined()
    },
  )
})

describe('parameters that replctl owns', () => {
  test.each([
    ['primary_conninfo: host=x password=hidden', 'cannot be set here. replctl renders it for each standby.'],
    ['primary_slot_name: x', 'cannot be set here. replctl renders it for each standby.'],
    ['hot_standby: off', 'cannot be off. A standby must answer queries: so replctl observes it.'],
    ['hot_standby: false', 'cannot be off. A standby must answer queries: so replctl observes it.'],
    ['hot_standby: "No"', 'cannot be No. A standby must answer queries: so replctl observes it.'],
    ['wal_level: minimal', 'cannot be minimal. A standby needs replica or logical.'],
    ['data_directory: /x', 'cannot be set here. Set postgres.data_dir.'],
    ['Port: 5433', 'cannot be set here. Set postgres.port.'],
    ['cluster_name: x', 'cannot be set here. It is the cluster of the inventory.'],
    [
      'synchronous_standby_names: "*"',
      'cannot be set here. Set replication.mode and replication.sync_standbys.',
    ],
    ['promote_trigger_file: /x', expect.stringContaining('cannot be set here. ')],
    ['restore_command: cp', 'cannot be set here. Describe the archive under "archive".'],
    ['recovery_target_time: now', expect.stringContaining('Use replctl restore')],
    ['recovery_min_apply_delay: 1h', "cannot be set here. Set the node's delay."],
    ['max_slot_wal_keep_size: 1GB', 'cannot be set here. Set replication.max_slot_wal_keep_size.'],
  ])('%s', async (written, expected) => {
    const name = written.split(':')[0]
    const [problem] = await problemsOf(withNodes(`  pg1: { host: a, parameters: { ${written} } }`))
    expect(problem?.split(`replctl.yaml:4:33: nodes.pg1.parameters: parameter "${name}" `)[1]).toEqual(
      expected,
    )
    expect(problem).not.toContain('hidden')
  })

  test('are refused among the common ones too', async () => {
    const text =
      'cluster: shop\npostgres: { data_dir: /d, parameters: { port: 1 } }\nnodes: { pg1: { host: a } }\n'
    expect(await problemsOf(text)).toEqual([
      'replctl.yaml:2:41: postgres.parameters: parameter "port" cannot be set here. Set postgres.port.',
    ])
  })

  test.each(['archive_command', 'archive_mode', 'archive_library'])(
    '%s only where there is an archive',
    async (name) => {
      const text = withNodes(`  pg1: { host: a, parameters: { ${name}: "x" } }`)
      expect((await loadText(text)).nodes).toHaveLength(1)
      const [problem] = await problemsOf(`${text}archive: { host: backup1, dir: /a }\n`)
      expect(problem).toContain(
        `parameter "${name}" cannot be set here. Set archive.mode, or remove "archive"`,
      )
    },
  )

  test.each(['hot_standby: on', 'wal_level: logical', 'wal_keep_size: 1GB', 'max_wal_senders: 20'])(
    '%s is free',
    async (written) => {
      expect(
        (await loadText(withNodes(`  pg1: { host: a, parameters: { ${written} } }`))).nodes,
      ).toHaveLength(1)
    },
  )
})

describe('the password file', () => {
  const text = withMore('replication: { password_file: ./pw }')
  test('that is missing is named in full', async () => {
    const [problem] = await problemsOf(text)
    expect(problem).toMatch(
      /^replctl\.yaml:6:31: replication\.password_file: no file \/.*\/pw\. Write the password into it/,
    )
  })

  test.each([
    ['', 'is empty'],
    ['\n', 'is empty'],
    ['\r\n', 'is empty'],
    ['hidden\n\n', 'has more than one line'],
    ['hidden\nhidden\n', 'has more than one line'],
  ])('with %j is refused', async (content, why) => {
    const [problem] = await problemsOf(text, { files: { pw: content } })
    expect(problem).toMatch(
      new RegExp(`^replctl\\.yaml:6:31: replication\\.password_file: the password in /.*/pw ${why}$`),
    )
    expect(problem).not.toContain('hidden')
  })

  test('that is not text, or a directory, is refused', async () => {
    const [binary] = await problemsOf(text, { files: { pw: Uint8Array.of(0xff, 0xfe) } })
    expect(binary).toMatch(/\/pw is not UTF-8 text$/)
    const folder = join(await temporaryFolder(), 'pw')
    await mkdir(folder)
    const [directory] = await problemsOf(text.replace('./pw', folder))
    expect(directory).toContain(`could not read ${folder} (EISDIR)`)
  })
})

describe('several problems', () => {
  test('are all told, in the order of the file; the first is the message', async () => {
    const error = await failureOf(
      loadText(`clustr: shop
postgres: { data_dir: /data, prot: 1 }
nodes:
  pg1: { host: a, upstream: pg9 }
  pg2: { host: b, port: x }
replication: { mode: sync, sync_standbys: 4 }
`),
    )
    expect(error.message).toBe('replctl.yaml:1:1: unknown key "clustr"')
    expect(error.hint).toBe('Did you mean "cluster"?')
    expect(error.detail?.split('\n')).toEqual([
      '5 problems:',
      'replctl.yaml:1:1: unknown key "clustr". Did you mean "cluster"?',
      'replctl.yaml:2:30: postgres: unknown key "prot". Did you mean "port"?',
      'replctl.yaml:4:29: nodes.pg1.upstream: unknown node "pg9". Did you mean "pg2"?',
      'replctl.yaml:5:25: nodes.pg2.port: expected a number, found "x"',
      'replctl.yaml:6:43: replication.sync_standbys: 4 standbys cannot confirm, the cluster has only 1 besides the primary. Set it to 1 or less, or add nodes.',
    ])
    expect(error.exitCode).toBe(2)
  })

  test('one problem needs no detail', async () => {
    expect((await failureOf(loadText(''))).detail).toBeUndefined()
  })

  test('what comes from an anchor is pointed at where it is written', async () => {
    const problems = await problemsOf(withNodes('  pg1: &n { host: a, port: x }\n  pg2: { <<: *n, host: b }'))
    expect(problems).toEqual([
      'replctl.yaml:4:28: nodes.pg1.port: expected a number, found "x"',
      'replctl.yaml:4:28: nodes.pg2.port: expected a number, found "x"',
    ])
  })
})
