import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { withCluster } from './lib/cluster.mjs'
import { median, replctl, rounds, time } from './lib/measure.mjs'
import { hasRepmgr, repmgrCommand, setUpRepmgr } from './lib/repmgr.mjs'
import { row } from './lib/report.mjs'
import { switchOverByHand } from './lib/switchover-by-hand.mjs'

const pgbench = '/usr/lib/postgresql/15/bin/pgbench'
const tps = 600

/**
 * The write outage of a switchover as a client sees it, quiet and under load, beside the best sequence by hand and beside
 * `repmgr standby switchover`; and how long the whole command takes, from its start to everything verified.
 */
export async function bench() {
  const ours = await withCluster({}, async (it) => {
    await prepare(it)
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
      row(`switchover, write outage, ${load}`, a, 'best sequence by hand', b, a / b, 1.5)
      row(
        `switchover, whole command, ${load}`,
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
  if (hasRepmgr()) await besideRepmgr(ours)
}

/** `ours`: the outage of replctl's switchover, ms, by load. */
export async function besideRepmgr(ours) {
  await withCluster({}, async (it) => {
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
      row(`switchover, write outage, ${load}`, a, 'repmgr standby switchover', c, a / c, 1 / 8)
    }
  })
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
