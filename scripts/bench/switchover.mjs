import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { hasRoomInMemory, withCluster, withClusterInMemory } from './lib/cluster.mjs'
import { median, replctl, rounds, time } from './lib/measure.mjs'
import { hasRepmgr, repmgrCommand, setUpRepmgr } from './lib/repmgr.mjs'
import { row } from './lib/report.mjs'
import { switchOverByHand } from './lib/switchover-by-hand.mjs'

const pgbench = '/usr/lib/postgresql/15/bin/pgbench'
const tps = 600

const dataDirectory = '/var/lib/postgresql/15/shop'

/**
 * The write outage of a switchover as a client sees it, quiet and under load, beside the best sequence by hand and beside
 * `repmgr standby switchover`; and how long the whole command takes, from its start to everything verified. A promotion writes
 * and syncs a whole WAL segment: where the disk is slow that is most of the outage, whoever promotes, and repmgr's pauses
 * of a second count for less. So the same follows with the hosts in memory, and what the segment costs stands beside both.
 */
export async function bench() {
  await benchOn(withCluster, '')
  if (hasRoomInMemory()) await benchOn(withClusterInMemory, ', hosts in memory')
  else console.error('not measured with the hosts in memory: too little of it')
}

async function benchOn(on, place) {
  const ours = await on({}, async (it) => {
    await prepare(it)
    const segment = await writeSegment(it)
    // Afterwards every node has been a standby once.
    for (const name of ['pg2', 'pg1']) await replctl(it.cluster, ['switchover', name])
    const measured = {}
    for (const load of ['quiet', 'under load']) {
      const [own, hand, whole] = [[], [], []]
      for (let round = 0; round < rounds * 2; round++) {
        own.push(
          await outage(it, 'pg1', load, async () =>
            whole.push(await time(() => replctl(it.cluster, ['switchover', 'pg2']))),
          ),
        )
        hand.push(await outage(it, 'pg2', load, () => switchOverByHand(it, 'pg2', 'pg1')))
      }
      measured[load] = median(own)
      const [a, b] = [median(own), median(hand)]
      console.error(
        `own ${own.map(Math.round)}; by hand ${hand.map(Math.round)}; whole ${whole.map(Math.round)}`,
      )
      row(`switchover, write outage, ${load}${place}`, a, 'best sequence by hand', b, a / b, 1.5)
      const synced = 'one WAL segment written and synced, as at each promotion'
      if (load === 'quiet')
        row(`switchover, write outage, ${load}${place}`, a, synced, segment, a - segment, null, 'ms')
      row(
        `switchover, whole command, ${load}${place}`,
        median(whole),
        'its write outage',
        a,
        median(whole),
        2500,
        'ms',
      )
    }
    return measured
  })
  if (hasRepmgr()) await besideRepmgr(ours, on, place)
}

/** `ours`: the outage of replctl's switchover, ms, by load. */
async function besideRepmgr(ours, on, place) {
  await on({}, async (it) => {
    await prepare(it)
    await setUpRepmgr(it)
    await letRepmgrIn(it)
    for (const load of ['quiet', 'under load']) {
      const theirs = []
      for (let round = 0; round < rounds; round++) {
        const [from, to] = round % 2 === 0 ? ['pg1', 'pg2'] : ['pg2', 'pg1']
        const command = `${repmgrCommand} standby switchover --siblings-follow`
        theirs.push(await outage(it, from, load, () => it.hosts.exec(to, command, { user: 'postgres' })))
        if (rounds % 2 === 1 && round === rounds - 1) {
          await outage(it, to, 'quiet', () => it.hosts.exec(from, command, { user: 'postgres' }))
        }
      }
      console.error(`repmgr ${theirs.map(Math.round)}`)
      const [a, c] = [ours[load], median(theirs)]
      row(`switchover, write outage, ${load}${place}`, a, 'repmgr standby switchover', c, a / c, 1 / 8)
    }
  })
}

/** What PostgreSQL does for a new timeline, in ms: 16 MB in pages of 8 kB, then fsync. */
async function writeSegment({ hosts }) {
  const path = `${dataDirectory}/segment`
  const script = `cd /; export LC_ALL=C; for n in 1 2 3 4 5 6 7; do dd if=/dev/zero of=${path} bs=8k count=2048 conv=fsync 2>&1 | sed -n 's/.*, \\([0-9.e-]*\\) s,.*/\\1/p'; rm ${path}; done`
  const { stdout } = await hosts.exec('pg2', script, { user: 'postgres' })
  return median(
    stdout
      .trim()
      .split('\n')
      .map((seconds) => Number(seconds) * 1000),
  )
}

async function prepare({ hosts }) {
  const sql = [
    '-qc',
    'CREATE TABLE writes (at timestamptz)',
    '-c',
    'CREATE ROLE bench SUPERUSER LOGIN',
    'postgres',
  ]
  await hosts.exec('pg1', ['psql', ...sql], { user: 'postgres' })
  await hosts.exec('pg1', `${pgbench} -i -q -s 5 postgres 2>/dev/null`, { user: 'postgres' })
}

/** The longest time between two confirmed writes of a client while `act` changes the primary. */
async function outage({ hosts }, primary, load, act) {
  const path = fileURLToPath(new URL('lib/outage-client.mjs', import.meta.url))
  const client = fork(
    path,
    hosts.names.map((name) => hosts.addressOf(name)),
  )
  const answer = () => new Promise((resolve) => client.once('message', resolve))
  const busy = load === 'quiet' ? undefined : startLoad(hosts, primary)
  await new Promise((resolve) => setTimeout(resolve, load === 'quiet' ? 500 : 3_000))
  client.send('reset')
  await answer()
  await act()
  client.send('report')
  const ms = await answer()
  client.disconnect()
  await busy
  return ms
}

/** Transactions at a steady rate until the primary goes. */
function startLoad(hosts, primary) {
  const to = `-h ${hosts.addressOf(primary)} -U bench`
  return hosts.exec('pg3', `${pgbench} ${to} -n -c 4 -j 1 -R ${tps} -T 600 postgres >/dev/null 2>&1 || :`, {
    user: 'postgres',
  })
}

/** repmgr goes from the candidate to the others by ssh as the same user. */
async function letRepmgrIn({ hosts }) {
  const home = '/var/lib/postgresql'
  const keys = await Promise.all(
    hosts.names.map(async (name) => {
      const make = `mkdir -p -m 700 .ssh; [ -f .ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519; cat .ssh/id_ed25519.pub`
      return (await hosts.exec(name, make, { user: 'postgres' })).stdout
    }),
  )
  for (const name of hosts.names) {
    await hosts.exec(name, `cat >> ${home}/.ssh/authorized_keys`, { user: 'postgres', input: keys.join('') })
    const config = 'StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n'
    await hosts.writeFile(name, `${home}/.ssh/config`, config, { owner: 'postgres', mode: 0o600 })
  }
}
