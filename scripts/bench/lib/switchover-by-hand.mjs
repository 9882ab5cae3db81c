/**
 * The shortest switchover that a DBA can script: checkpoints first, everything open, the moment of the shutdown checkpoint
 * watched in pg_control, the candidate promoted as soon as it has replayed it and woken up meanwhile. Then the follow-up.
 */
import { spawn } from 'node:child_process'
import pg from 'pg'

const bin = '/usr/lib/postgresql/15/bin'
const data = '/var/lib/postgresql/15/shop'
const stopScript = `
read pid < ${data}/postmaster.pid
echo ready
read word
touch ${data}/standby.signal
kill -INT "$pid"
while :; do
  seen=$(LC_ALL=C ${bin}/pg_controldata ${data})
  case $seen in *"state:               shut down
"*) break ;; esac
  sleep 0.002
done
echo "$seen" | sed -n 's/^Latest checkpoint location: *//p'
while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
${bin}/pg_ctl start -D ${data} -l ${data}.log -w -s </dev/null >/dev/null 2>&1
echo started
`

/** Hands over from one node to another; every node has a replctl.standby.conf from an earlier switchover. */
export async function switchOverByHand({ hosts }, from, to) {
  const open = async (name) => {
    const session = new pg.Client({ host: hosts.addressOf(name), user: 'bench', database: 'postgres' })
    session.on('error', () => undefined)
    await session.connect()
    return session
  }
  const others = hosts.names.filter((name) => name !== from && name !== to)
  const [primary, candidate, ...rest] = await Promise.all([from, to, ...others].map(open))
  await primary.query('CHECKPOINT')
  await candidate.query('CHECKPOINT')
  for (const name of [from, ...others]) {
    await candidate.query(
      `SELECT pg_create_physical_replication_slot('shop_${name}', true) WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = 'shop_${name}')`,
    )
  }
  const point = (name) =>
    hosts.exec(name, `sed -i 's/host=[0-9.]*/host=${hosts.addressOf(to)}/' ${data}/replctl.standby.conf`, {
      user: 'postgres',
    })
  await point(from)
  await primary.end()
  const shell = openShell(hosts, from)
  await shell.line() // ready
  shell.child.stdin.write('go\n')
  const checkpoint = await shell.line()
  for (;;) {
    const { rows } = await candidate.query(`SELECT pg_last_wal_replay_lsn() > '${checkpoint}' AS done`)
    if (rows[0].done) break
  }
  await candidate.query('SELECT pg_promote(false)')
  let wakeAt = 0
  for (;;) {
    if (performance.now() >= wakeAt) {
      await candidate.query('SELECT pg_reload_conf()')
      wakeAt = performance.now() + 10
    }
    const { rows } = await candidate.query('SELECT pg_is_in_recovery() AS standby')
    if (!rows[0].standby) break
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  await Promise.all(others.map(point))
  await Promise.all(rest.map((session) => session.query('SELECT pg_reload_conf()')))
  await shell.line() // started
  shell.child.stdin.end()
  const streaming = `SELECT count(*)::int AS n FROM pg_stat_replication WHERE state = 'streaming'`
  while ((await candidate.query(streaming)).rows[0].n < hosts.names.length - 1) {
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  const old = await open(from)
  await old.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots')
  await candidate.query('CHECKPOINT')
  await Promise.all([old, candidate, ...rest].map((session) => session.end()))
}

/** A shell on a host over ssh, opened before it is needed. */
function openShell(hosts, name) {
  const { host, user, identityFile, knownHostsFile } = hosts.sshConfigFor(name)
  const options = ['-i', identityFile, '-o', `UserKnownHostsFile=${knownHostsFile}`, '-o', 'BatchMode=yes']
  const child = spawn('ssh', [...options, `${user}@${host}`, stopScript], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  let text = ''
  let wake = () => undefined
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    text += chunk
    wake()
  })
  const line = async () => {
    while (!text.includes('\n')) await new Promise((resolve) => (wake = resolve))
    const [first, ...more] = text.split('\n')
    text = more.join('\n')
    return first
  }
  return { child, line }
}
