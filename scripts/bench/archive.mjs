import { existsSync, readFileSync } from 'node:fs'
import { ensureRequirements } from '../lib/requirements.mjs'
import { kit } from './lib/cluster.mjs'
import { row } from './lib/report.mjs'

const count = Number(process.env.BENCH_SEGMENTS ?? 100)
const rounds = Number(process.env.BENCH_ROUNDS ?? 2)
const chosen = (process.env.BENCH_ARCHIVE ?? '').split(',').filter(Boolean)
const home = '/var/lib/postgresql'
const wal = `${home}/15/shop/pg_wal`
let hosts

/**
 * Ready segments of 16 MB pushed by PostgreSQL's own archiver over SSH from one test host to another, with replctl and with
 * what its users would run instead, one after the other, on the same hosts and with the same segments. CPU seconds are those of
 * the whole machine, both hosts that is: run it on an idle one. BENCH_SEGMENTS (default 100); BENCH_ARCHIVE names some of
 * replctl, none, scp, rsync, pgbackrest, async, cp.
 */
export async function bench() {
  ensureRequirements('archive-bench')
  hosts = await kit.TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'backup1' }] })
  try {
    await compare()
  } finally {
    await hosts.destroy()
  }
}

async function compare() {
  const archiveDir = `${home}/archive`
  const cluster = await kit.TestCluster.create(hosts, {
    nodes: ['pg1'],
    inventory: {
      postgres: { parameters: { max_wal_size: '100GB', checkpoint_timeout: '1d', fsync: 'off' } },
      archive: { host: hosts.addressOf('backup1'), user: 'postgres', dir: archiveDir },
    },
  })
  await cluster.init()
  const identifier = (await sql('SELECT system_identifier FROM pg_control_system()')).trim()
  await logInToEachOther()
  if (isInstalled('pgbackrest')) await setUpPgBackRest()
  const command = (await sql('SHOW archive_command')).trim()
  await setCommand('')
  const segments = await makeSegments()
  const to = `postgres@${hosts.addressOf('backup1')}`
  const pgBackRest = 'pgbackrest --stanza=shop archive-push %p'
  const contenders = {
    replctl: { command, place: `${archiveDir}/${identifier}/wal` },
    none: {
      command,
      place: `${archiveDir}/${identifier}/wal`,
      edit: "s/^compression='auto'/compression='none'/",
    },
    scp: { command: `scp -q %p ${to}:${home}/scp/%f`, place: `${home}/scp` },
    rsync: { command: `rsync -a %p ${to}:${home}/rsync/%f`, place: `${home}/rsync` },
    pgbackrest: { command: pgBackRest, place: `${home}/pgbackrest/archive/shop/15-1` },
    async: {
      command: `${pgBackRest} --archive-async --process-max=2`,
      place: `${home}/pgbackrest/archive/shop/15-1`,
    },
    cp: { command: `cp %p ${home}/cp/%f`, place: `${home}/cp`, host: 'pg1' },
  }
  const results = []
  for (let round = 1; round <= rounds; round++) {
    for (const [name, contender] of Object.entries(contenders)) {
      if (chosen.length > 0 && !chosen.includes(name)) continue
      if (!isInstalled(name === 'async' ? 'pgbackrest' : name)) continue
      const result = await push(name, contender, segments)
      results.push({ name, ...result })
      console.error(`${name}: ${result.perSecond.toFixed(1)} segments/s, ${result.cpu.toFixed(1)} CPU s`)
    }
  }
  const best = (name) =>
    results.filter((one) => one.name === name).toSorted((a, b) => b.perSecond - a.perSecond)[0]
  const own = best('replctl')
  for (const [name, goal] of [
    ['scp', 1 / 5],
    ['pgbackrest', 1],
    ['async', 1],
    ['rsync', null],
    ['cp', null],
  ]) {
    const other = best(name)
    if (own === undefined || other === undefined) continue
    const [ownMs, otherMs] = [1000 / own.perSecond, 1000 / other.perSecond]
    row(
      'push a segment of 16 MB',
      ownMs,
      contenders[name].command.split(' %p')[0],
      otherMs,
      ownMs / otherMs,
      goal,
    )
  }
}

/** Of the contenders that are packages of their own; the others are always there. */
function isInstalled(name) {
  return !['pgbackrest', 'rsync'].includes(name) || existsSync(`/usr/bin/${name}`)
}

/** Makes the same segments ready again, and waits until the archiver has sent them all. */
async function push(name, { command, place, host = 'backup1', edit }, segments) {
  await hosts.exec(host, `mkdir -p ${place} && find ${place} -type f -delete`, { user: 'postgres' })
  const script = `${home}/.replctl/shop/archive-push`
  if (edit)
    await hosts.exec('pg1', `cp -p ${script} ${script}.kept && sed -i "${edit}" ${script}`, {
      user: 'postgres',
    })
  const status = `${wal}/archive_status`
  const again = `cd ${status} && for n in ${segments.join(' ')}; do rm -f $n.done; : >$n.ready; done`
  await hosts.exec('pg1', again, { user: 'postgres' })
  // What an earlier round left must not make this one quicker.
  await hosts.exec('pg1', `rm -rf ${home}/pgbackrest-spool/* ${home}/.replctl/shop/sent; sync`, {})
  const before = busySeconds()
  const startedAt = performance.now()
  await setCommand(command)
  await kit.awaitCondition(
    `${name} has sent all`,
    async () => {
      const left = await hosts.exec('pg1', `ls ${status} | grep -c '[.]ready$'; :`, { user: 'postgres' })
      return Number(left.stdout) === 0 || undefined
    },
    { timeoutMs: 300_000, everyMs: 100 },
  )
  const seconds = (performance.now() - startedAt) / 1000
  const cpu = busySeconds() - before
  await setCommand('')
  if (edit) await hosts.exec('pg1', `mv ${script}.kept ${script}`, { user: 'postgres' })
  const there = await hosts.exec(host, `find ${place} -type f | grep -Ec '/[0-9A-F]{24}'; :`, {
    user: 'postgres',
  })
  if (Number(there.stdout) < segments.length) throw new Error(`${name}: only ${there.stdout.trim()} arrived`)
  return { perSecond: segments.length / seconds, cpu }
}

/** Full segments of what a busy server writes: inserts and updates of pgbench. */
async function makeSegments() {
  await hosts.exec('pg1', '/usr/lib/postgresql/15/bin/pgbench -i -q -s 5 postgres', { user: 'postgres' })
  const list = async () =>
    (await hosts.exec('pg1', `ls ${wal}/archive_status`, { user: 'postgres' })).stdout
      .split('\n')
      .filter((name) => /^[0-9A-F]{24}\.ready$/.test(name))
      .map((name) => name.replace('.ready', ''))
  for (;;) {
    const found = await list()
    if (found.length >= count) return found.slice(0, count)
    await sql(
      'UPDATE pgbench_accounts SET abalance = (random() * 1000)::int, filler = md5(aid::text || random()::text)',
    )
    await sql('VACUUM pgbench_accounts')
  }
}

async function setCommand(command) {
  await sql(`ALTER SYSTEM SET archive_command = '${command.replaceAll("'", "''")}'`)
  await sql('SELECT pg_reload_conf()')
}

async function sql(statement) {
  return (await hosts.exec('pg1', ['psql', '-XAtqc', statement, 'postgres'], { user: 'postgres' })).stdout
}

/** So that `ssh backup1` works as it would for an operator who set it up by hand. */
async function logInToEachOther() {
  const [key, known] = [readFileSync(hosts.identityFile, 'utf8'), readFileSync(hosts.knownHostsFile, 'utf8')]
  for (const host of hosts.names) {
    await hosts.exec(host, 'mkdir -p -m 700 ~/.ssh', { user: 'postgres' })
    await hosts.writeFile(host, `${home}/.ssh/id_ed25519`, key, { owner: 'postgres', mode: 0o600 })
    await hosts.writeFile(host, `${home}/.ssh/known_hosts`, known, { owner: 'postgres', mode: 0o600 })
  }
}

async function setUpPgBackRest() {
  const common = `compress-type=zst\nlog-level-console=error\nlog-level-file=off\nlog-path=${home}/pgbackrest-log\nspool-path=${home}/pgbackrest-spool\nlock-path=${home}/pgbackrest-lock\n`
  const node = `[global]\n${common}repo1-host=${hosts.addressOf('backup1')}\nrepo1-host-user=postgres\n[shop]\npg1-path=${home}/15/shop\n`
  const repository = `[global]\n${common}repo1-path=${home}/pgbackrest\n[shop]\npg1-path=${home}/15/shop\npg1-host=${hosts.addressOf('pg1')}\npg1-host-user=postgres\n`
  for (const [host, text] of [
    ['pg1', node],
    ['backup1', repository],
  ]) {
    await hosts.writeFile(host, '/etc/pgbackrest.conf', text)
    await hosts.exec(host, `mkdir -p ${home}/pgbackrest ${home}/pgbackrest-log ${home}/pgbackrest-spool`, {
      user: 'postgres',
    })
  }
  await hosts.exec('backup1', 'pgbackrest --stanza=shop stanza-create', { user: 'postgres' })
}

/** CPU time that this machine has spent on anything, in seconds. */
function busySeconds() {
  const [user, nice, system, , , irq, softIrq] = /^cpu +(.*)$/m
    .exec(readFileSync('/proc/stat', 'utf8'))[1]
    .split(' ')
    .map(Number)
  return (user + nice + system + irq + softIrq) / 100
}
