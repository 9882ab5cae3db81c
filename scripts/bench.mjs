#!/usr/bin/env node
/**
 * `npm run bench [-- name …]`: replctl beside what its users would run instead, in one run on the same test hosts.
 * Prints medians, ratios and the goal of each. Needs root (hosts in namespaces). Names: start status clone promote off scale.
 * BENCH_SCALE (default 100) is pgbench's scale for `clone`; BENCH_ROUNDS (default 3) how often the dear ones are repeated.
 */
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { loadKit } from './lib/load-kit.mjs'
import { ensureRequirements } from './lib/requirements.mjs'

const bin = fileURLToPath(new URL('../bin/replctl', import.meta.url))
const scale = Number(process.env.BENCH_SCALE ?? 100)
const rounds = Number(process.env.BENCH_ROUNDS ?? 3)
const chosen = process.argv.slice(2)
const rows = []
const repmgrCommand = '/usr/lib/postgresql/15/bin/repmgr -f /var/lib/postgresql/repmgr.conf'
let peakKb = 0

spawnSync(process.execPath, [fileURLToPath(new URL('build.mjs', import.meta.url))], { stdio: 'inherit' })
ensureRequirements('tests')
const kit = await loadKit()
const { default: pg } = await import('pg')
if (kit.hostsAvailable().kind !== 'namespaces') {
  console.error(`no test hosts here: ${kit.hostsAvailable().reason}`)
  process.exit(1)
}
const benches = { start, status, clone, promote, off, scale: manyStandbys }
for (const [name, bench] of Object.entries(benches)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue
  console.error(`# ${name}`)
  await bench()
}
report()

/** `replctl --version` beside an empty Node.js. */
async function start() {
  const node = median(await times(15, () => run(process.execPath, ['-e', '0'])))
  const own = median(await times(15, () => run(process.execPath, [bin, '--version'])))
  row('replctl --version', own, 'node -e 0', node, own / node, 2)
}

/** `status` of three nodes beside one `ssh host true`. */
async function status() {
  await withCluster({}, async ({ cluster, hosts }) => {
    const ssh = median(await times(9, () => hosts.ssh('pg1', 'true')))
    const own = median(await times(9, () => replctl(cluster, ['status'])))
    row('status of 3 nodes', own, 'ssh host true', ssh, own / ssh, 3)
  })
}

/** `add-standby` beside `pg_basebackup` by hand, both until everything is on disk. */
async function clone() {
  await withCluster({ standbys: [] }, async ({ cluster, hosts }) => {
    await hosts.exec('pg1', `/usr/lib/postgresql/15/bin/pgbench -i -q -s ${scale} postgres`, {
      user: 'postgres',
    })
    await hosts.exec('pg1', `psql -qc 'VACUUM' -c CHECKPOINT postgres`, { user: 'postgres' })
    await cluster.addStandbys(['pg2'])
    const home = '/var/lib/postgresql'
    const conninfo = `host=${hosts.addressOf('pg1')} user=replicator passfile=${home}/.replctl/shop/pgpass`
    const byHand = async (host) => {
      await hosts.exec(host, `rm -rf ${home}/15/hand; sync`, { user: 'postgres' })
      const ms = await time(() =>
        hosts.exec(
          host,
          `/usr/lib/postgresql/15/bin/pg_basebackup -D ${home}/15/hand -Fp -Xs -P -R -c fast -d '${conninfo}' 2>/dev/null`,
          { user: 'postgres' },
        ),
      )
      await hosts.exec(host, `rm -rf ${home}/15/hand; sync`, { user: 'postgres' })
      return ms
    }
    const ours = async (...nodes) => {
      for (const node of nodes) await remove(cluster, node)
      await hosts.exec('pg1', 'sync', {})
      return await time(() => replctl(cluster, ['add-standby', ...nodes]))
    }
    const pair = { hand: [], own: [] }
    for (let round = 0; round < rounds; round++) {
      pair.hand.push(await byHand('pg2'))
      pair.own.push(await ours('pg2'))
    }
    row(
      `add-standby, scale ${scale}`,
      median(pair.own),
      'pg_basebackup by hand',
      median(pair.hand),
      median(pair.own) / median(pair.hand),
      0.95,
    )
    const two = median(await times(rounds, () => ours('pg2', 'pg3'), true))
    row('add-standby of two at once', two, 'of one', median(pair.own), two / median(pair.own), 1.5)
    await hosts.limitLink('pg1', '200mbit')
    const slowHand = await byHand('pg2')
    const slowOwn = await ours('pg2')
    row('add-standby at 200 Mbit/s', slowOwn, 'pg_basebackup by hand', slowHand, slowOwn / slowHand, 0.6)
    await hosts.limitLink('pg1', undefined)
  })
}

/** After the primary's PostgreSQL was killed: from the start of the command to the first accepted write. */
async function promote() {
  const own = []
  const hand = []
  const repmgr = []
  for (let round = 0; round < rounds; round++) {
    own.push(await failover(async ({ cluster }) => void (await replctl(cluster, ['promote', 'pg2']))))
    hand.push(
      await failover(async (_, session) => {
        await session.query('SELECT pg_promote(false)')
      }),
    )
    if (hasRepmgr()) {
      repmgr.push(
        await failover(
          ({ hosts }) => hosts.exec('pg2', `${repmgrCommand} standby promote`, { user: 'postgres' }),
          setUpRepmgr,
        ),
      )
    }
  }
  const [a, b] = [median(own), median(hand)]
  row('promote, PostgreSQL killed', a, 'pg_promote() in an open session', b, a - b, 700, 'ms more')
  if (repmgr.length > 0)
    row('promote, PostgreSQL killed', a, 'repmgr standby promote', median(repmgr), a / median(repmgr), null)
  else console.error('repmgr is not installed (apt-get install postgresql-15-repmgr): left out')
}

/** After the primary's host was switched off. */
async function off() {
  const own = []
  for (let round = 0; round < rounds; round++) {
    own.push(
      await failover(
        async ({ cluster }) => void (await replctl(cluster, ['promote', 'pg2'])),
        undefined,
        ({ hosts }) => hosts.powerOff('pg1'),
      ),
    )
  }
  row('promote, host switched off', median(own), 'goal', 2000, median(own), 2000, 'ms')
}

/** The same commands with one and with sixteen standbys more. */
async function manyStandbys() {
  const measure = async (count) => {
    const names = Array.from({ length: count + 1 }, (_, index) => `pg${index + 1}`)
    const parameters = { shared_buffers: '16MB', max_wal_senders: 40, max_replication_slots: 40 }
    return await withCluster({ names, parameters }, async ({ cluster, hosts }) => {
      const look = median(await times(5, () => replctl(cluster, ['status'])))
      const verify = median(await times(5, () => replctl(cluster, ['verify'])))
      await cluster.server('pg1').kill9()
      const promoted = await time(() => replctl(cluster, ['promote', 'pg2']))
      void hosts
      return { look, verify, promoted }
    })
  }
  const [few, many] = [await measure(2), await measure(16)]
  row('status, 1 + 16', many.look, '1 + 2', few.look, many.look / few.look, 3)
  row('verify, 1 + 16', many.verify, '1 + 2', few.verify, many.verify / few.verify, 3)
  row('promote, 1 + 16', many.promoted, '1 + 2', few.promoted, many.promoted / few.promoted, 3)
}

/** Builds a cluster, loses its primary, and measures from the start of `act` to the first write on pg2. */
async function failover(act, prepare, lose = ({ cluster }) => cluster.server('pg1').kill9()) {
  return await withCluster({ fence: { command: 'true' }, ssh: { connect_timeout: '1s' } }, async (it) => {
    const { hosts, cluster } = it
    await hosts.exec(
      'pg1',
      `psql -qc 'CREATE TABLE writes (at timestamptz)' -c 'CREATE ROLE bench SUPERUSER LOGIN' postgres`,
      {
        user: 'postgres',
      },
    )
    await prepare?.(it)
    await cluster.server('pg2').awaitCatchup(cluster.server('pg1'))
    const client = () => new pg.Client({ host: hosts.addressOf('pg2'), user: 'bench', database: 'postgres' })
    const [session, writer] = [client(), client()]
    for (const one of [session, writer]) {
      one.on('error', () => undefined)
      await one.connect()
    }
    await lose(it)
    const startedAt = performance.now()
    let isOver = false
    const acting = Promise.resolve(act(it, session)).finally(() => (isOver = true))
    acting.catch(() => undefined)
    let writtenAt
    for (let tries = 0; writtenAt === undefined && tries < 30_000; tries++) {
      try {
        await writer.query('INSERT INTO writes VALUES (now())')
        writtenAt = performance.now()
      } catch {
        if (isOver && tries > 20_000) break
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    }
    await acting
    await session.end()
    await writer.end()
    if (writtenAt === undefined) throw new Error('no write was ever accepted')
    return writtenAt - startedAt
  })
}

function hasRepmgr() {
  const there = () => spawnSync('test', ['-x', '/usr/lib/postgresql/15/bin/repmgr']).status === 0
  if (!there()) spawnSync('apt-get', ['install', '-y', '-qq', 'postgresql-15-repmgr'], { stdio: 'ignore' })
  return there()
}

async function setUpRepmgr({ hosts }) {
  const sql = (statement) => hosts.exec('pg1', ['psql', '-qc', statement, 'postgres'], { user: 'postgres' })
  await sql('CREATE ROLE repmgr SUPERUSER LOGIN REPLICATION')
  await sql('CREATE DATABASE repmgr OWNER repmgr')
  for (const [index, name] of ['pg1', 'pg2', 'pg3'].entries()) {
    const conninfo = `host=${hosts.addressOf(name)} user=repmgr dbname=repmgr connect_timeout=2`
    await hosts.writeFile(
      name,
      '/var/lib/postgresql/repmgr.conf',
      [
        `node_id=${index + 1}`,
        `node_name='${name}'`,
        `conninfo='${conninfo}'`,
        `data_directory='/var/lib/postgresql/15/shop'`,
        `pg_bindir='/usr/lib/postgresql/15/bin'`,
        'use_replication_slots=yes',
      ].join('\n'),
    )
  }
  await hosts.exec('pg1', `${repmgrCommand} primary register`, { user: 'postgres' })
  for (const name of ['pg2', 'pg3']) {
    await hosts.exec(
      name,
      `for i in 1 2 3 4 5 6 7 8 9; do ${repmgrCommand} standby register --force && exit 0; sleep 0.3; done; exit 1`,
      {
        user: 'postgres',
      },
    )
  }
}

async function withCluster(
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
    if (standbys.length > 0) await cluster.addStandbys(standbys)
    return await work({ hosts, cluster })
  } finally {
    await hosts.destroy()
  }
}

async function remove(cluster, node) {
  const result = await cluster.replctl(['remove-standby', node, '--purge'])
  if (result.exitCode !== 0 && !/empty|not built/.test(result.stderr))
    throw new Error(result.stderr.slice(0, 500))
}

/** Runs replctl on a cluster and remembers the most memory that it ever had. */
function replctl(cluster, args) {
  return run(process.execPath, [bin, ...args, '--config', cluster.inventoryFile, '--quiet'])
}

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (chunk) => (said = (said + chunk).slice(-2000)))
    const watch = setInterval(() => rememberPeak(child.pid), 20)
    child.on('close', (status) => {
      clearInterval(watch)
      if (status === 0 || status === 9) resolve()
      else reject(new Error(`${args.join(' ')} ended with ${status}: ${said}`))
    })
  })
}

function rememberPeak(pid) {
  try {
    const peak = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    peakKb = Math.max(peakKb, Number(peak ?? 0))
  } catch {
    // It has ended.
  }
}

async function time(work) {
  const startedAt = performance.now()
  const given = await work()
  return typeof given === 'number' ? given : performance.now() - startedAt
}

/** How long `work` took, each time; `isGiven`: work gives its own measure. */
async function times(count, work) {
  const measured = []
  for (let round = 0; round < count; round++) measured.push(await time(work))
  return measured
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]
}

function row(what, ownMs, against, otherMs, value, goal, unit = 'times') {
  const line = {
    what,
    own: `${Math.round(ownMs)} ms`,
    against,
    other: `${Math.round(otherMs)} ms`,
    value,
    goal,
    unit,
  }
  rows.push(line)
  console.error(tell(line))
}

function tell({ what, own, against, other, value, goal, unit }) {
  const shown = unit === 'times' ? `${value.toFixed(2)} times` : `${Math.round(value)} ${unit}`
  const verdict =
    goal === null ? '' : `  (goal: at most ${goal} ${unit}: ${value <= goal ? 'met' : 'MISSED'})`
  return `${what}: ${own}; ${against}: ${other}; ${shown}${verdict}`
}

function report() {
  console.log('\nmedians, one run, the same hosts')
  for (const line of rows) console.log(tell(line))
  console.log(
    `peak memory of replctl: ${Math.round(peakKb / 1024)} MB (goal: under 150 MB: ${peakKb < 150 * 1024 ? 'met' : 'MISSED'})`,
  )
}
