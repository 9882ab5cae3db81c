import type { NodeFacts } from '../cluster/facts.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { quoteForShell } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { type Isolation, isolatedRecoveryConf, isolationSettings } from '../postgres/isolation.ts'
import { hasGotOn, parseRecoveryState, type RecoveryState, standstill } from '../postgres/recovery-state.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { type Node, stateScript } from './node.ts'
import { openSqlSession, type SqlSession } from './sql-session.ts'

/** A stopped instance of a node that is to be started so that nobody but replctl can reach it. */
export interface IsolatedPlace extends Omit<Isolation, 'socketDirectory' | 'hbaFile'> {
  readonly binDirectory: string
  /** Home of the PostgreSQL OS user. */
  readonly home: string
  /** Where postgresql.conf lies; may be the data directory. */
  readonly configDirectory: string
}

/**
 * `$own` is a folder of ours, private; `$socket` the folder of the one socket. Whether the running postmaster is the
 * isolated one is told by the socket folder in its own pid file.
 */
const placeScript = `
own=$2 socket=$3 data=$4 bin=$5
alive() {
  [ -f "$data/postmaster.pid" ] || return 1
  read -r pid < "$data/postmaster.pid"
  kill -0 "$pid" 2>/dev/null || return 1
  [ -d /proc ] || return 0
  [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$(cd -P -- "$data" && pwd -P)" ]
}
is_ours() { [ "$(sed -n 5p "$data/postmaster.pid" 2>/dev/null)" = "$socket" ]; }
`

/**
 * standby.signal comes before the start: whatever happens to replctl from here on, the instance is no primary. It stays
 * there afterwards, since an instance that has diverged must not come up read-write by itself.
 */
const startScript = `${placeScript}
if alive; then is_ours && exit 0; exit 75; fi
mkdir -p "$own" "$socket" && chmod 700 "$own" "$socket" && [ -O "$socket" ] && [ ! -L "$socket" ] || exit 70
printf 'local all all peer\\n' > "$own/pg_hba.conf" || exit 74
if [ "$7" != '' ]; then
  if [ -e "$data/recovery.conf" ] && [ ! -e "$own/recovery.conf" ]; then
    cp -p "$data/recovery.conf" "$own/recovery.conf.new" && mv "$own/recovery.conf.new" "$own/recovery.conf" || exit 74
  fi
  printf '%s' "$7" > "$own/recovery.conf.isolated" && cp "$own/recovery.conf.isolated" "$data/recovery.conf.replctl" || exit 74
  mv "$data/recovery.conf.replctl" "$data/recovery.conf" || exit 74
elif [ ! -e "$data/standby.signal" ]; then
  : > "$data/standby.signal" || exit 74
  sync "$data/standby.signal" 2>/dev/null || sync
fi
"$bin/pg_ctl" start -D "$data" -l "$own/log" -W -s -o "$6" </dev/null >/dev/null 2>&1
:
`

/**
 * Waits up to some seconds until it answers or is gone. One that does neither says what its processes have done so far: ticks
 * of the processor and bytes read and written, and whether one of them waits for a disk right now.
 */
export const awaitScript = `${placeScript}
n=0
while [ $n -lt "\${6:-100}" ]; do
  n=$((n + 1))
  if ! alive; then [ $n -lt 20 ] || { echo dead; break; }
  elif [ "$(sed -n 8p "$data/postmaster.pid" | tr -d ' ')" = ready ]; then echo ready; exit 0
  fi
  sleep 0.05 2>/dev/null || sleep 1
done
if alive && [ -r "/proc/$pid/stat" ]; then
  ticks=0 bytes=0 disk=no
  for child in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null || pgrep -P "$pid" 2>/dev/null); do
    stat=$(cat "/proc/$child/stat" 2>/dev/null) || continue
    set -- \${stat##*) }
    [ "$1" != D ] || disk=yes
    ticks=$((ticks + \${12:-0} + \${13:-0}))
    while read -r name count; do
      case $name in rchar:|wchar:) bytes=$((bytes + count)) ;; esac
    done 2>/dev/null < "/proc/$child/io"
  done
  echo "at work $ticks $bytes $disk"
fi
[ -f "$own/log" ] && tail -c 3000 "$own/log"
:
`

const stopScript = `${placeScript}
if alive && is_ours; then
  "$bin/pg_ctl" stop -D "$data" -m fast -w -t 3600 -s </dev/null || exit 1
fi
if [ -e "$own/recovery.conf" ]; then mv -f "$own/recovery.conf" "$data/recovery.conf" || exit 74; fi
rm -rf -- "$socket" "$own"
`

/** How long recovery may stand still: by then it takes reads, or never will. */
const standstillMs = 30_000

/**
 * Starts a stopped (or crashed) instance in isolation and waits until it has replayed the WAL that lies there. One that
 * an earlier, killed run had started is found and used.
 * @returns the folder of its socket
 * @throws {ReplctlError} `start-failed` with the end of its log, `data-directory-in-use` if another instance runs there
 */
export async function startIsolated(
  node: Node,
  place: IsolatedPlace,
  options: { readonly signal: AbortSignal; readonly patienceMs?: number },
): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    await launch(node, place)
    const said = await awaitReady(node, place, options)
    if (said === null) return socketDirectoryOf(node, place)
    // Backends of a postmaster that was killed a moment ago are still in the way.
    const isPassing = /pre-existing shared memory block|lock file "postmaster.pid" already exists/.test(said)
    if (!isPassing || attempt === 20) throw failed(node, said)
  }
}

/** Stops the isolated instance; leaves any other one alone. Nothing of it is left, the fencing signal excepted. */
export async function stopIsolated(node: Node, place: IsolatedPlace): Promise<void> {
  await node.closeSql()
  const command = stateScript(node, 'stop the isolated instance', stopScript, argsOf(node, place))
  await node.output(command, { timeoutMs: 3_600_000 })
}

/** A session on a database of the isolated instance. */
export async function openIsolated(node: Node, place: IsolatedPlace, database: string): Promise<SqlSession> {
  const { settings } = node
  const there = { ...settings, postgres: { ...settings.postgres, database } }
  const socketDirectory = socketDirectoryOf(node, place)
  const endpoint = { socketDirectory, port: settings.postgres.port, binDirectory: place.binDirectory }
  return await openSqlSession(node.transport, there, endpoint)
}

/** What a startup process waits with when there is no more WAL to replay; the names of 11 to 18. */
const waitingEvents = ['RecoveryRetrieveRetryInterval', 'RecoveryWalStream', 'RecoveryWalAll']

/**
 * Waits until an isolated instance has replayed all WAL that lies there. It takes reads before that where it was a
 * standby, as soon as it is consistent: it is done when it waits for more WAL.
 * @throws {ReplctlError} `start-failed` if it ends meanwhile, or pauses by itself (too small a max_connections, …)
 */
export async function awaitReplayOfAll(
  node: Node,
  place: IsolatedPlace,
  options: { readonly signal: AbortSignal; readonly progress: (replayed: string) => void },
): Promise<void> {
  const session = await openIsolated(node, place, node.settings.postgres.database)
  try {
    while (!(await hasReplayedAll(node, session))) {
      if (options.signal.aborted) throw new ReplctlError('interrupted', 'interrupted during a recovery')
      options.progress((await session.value('SELECT pg_last_wal_replay_lsn()::text')) ?? 'nothing yet')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  } catch (thrown) {
    const said = session.isOpen ? null : await awaitReady(node, place, options)
    throw said === null ? thrown : failed(node, said)
  } finally {
    await session.close()
  }
}

async function hasReplayedAll(node: Node, session: SqlSession): Promise<boolean> {
  const event = await session.value("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'")
  if (event === 'RecoveryPause') {
    const at = await session.value('SELECT pg_last_wal_replay_lsn()::text')
    throw failed(node, `It paused its recovery by itself at ${at}.`)
  }
  return event !== null && waitingEvents.includes(event)
}

/** Whether the running instance is one that was started in isolation. */
export function isIsolated(node: Node, facts: NodeFacts): boolean {
  return facts.postmaster?.socketDirectory === socketDirectoryOf(node, facts)
}

/** Replctl's folder for the time of the isolation. */
const ownFolderOf = (node: Node, { home }: { readonly home: string }): string =>
  `${stateDirectoryOf(home, node.settings)}/isolated`

/** The name of a unix socket must be short: 107 bytes at most, 103 on some systems. */
export function socketDirectoryOf(node: Node, place: { readonly home: string }): string {
  const own = `${ownFolderOf(node, place)}/socket`
  return Buffer.byteLength(own) <= 80 ? own : `/tmp/.replctl-isolated-${node.settings.slotName}`
}

function argsOf(node: Node, place: IsolatedPlace): readonly string[] {
  const folders = [ownFolderOf(node, place), socketDirectoryOf(node, place)]
  return [...folders, node.settings.postgres.dataDir, place.binDirectory]
}

async function launch(node: Node, place: IsolatedPlace): Promise<void> {
  const { dataDir, port } = node.settings.postgres
  const isolation = {
    ...place,
    socketDirectory: socketDirectoryOf(node, place),
    hbaFile: `${ownFolderOf(node, place)}/pg_hba.conf`,
  }
  const settings = {
    ...(place.configDirectory === dataDir ? {} : { config_file: `${place.configDirectory}/postgresql.conf` }),
    ...isolationSettings(isolation),
    port: String(port),
  }
  const options = Object.entries(settings).map(([name, value]) => `-c ${quoteForShell(`${name}=${value}`)}`)
  const recoveryConf = capabilitiesOf(place.major).recoveryConf ? isolatedRecoveryConf(isolation) : ''
  const args = [...argsOf(node, place), options.join(' '), recoveryConf]
  const result = await node.run(stateScript(node, 'start the old instance in isolation', startScript, args))
  if (result.status === 75) {
    throw new ReplctlError('data-directory-in-use', `PostgreSQL runs on ${node.name}`, {
      detail: 'What only it has can be read out only while it is stopped.',
      hint: 'Stop it, then run the command again.',
      node: node.name,
    })
  }
  if (result.status !== 0) throw failed(node, result.stderr)
}

/**
 * Null once it answers; the end of its log when it is gone, or does not come to answer: a standby of nobody whose WAL ends
 * before it is consistent waits for more of it without end, and says nothing.
 */
async function awaitReady(
  node: Node,
  place: IsolatedPlace,
  { signal, patienceMs = standstillMs }: { readonly signal: AbortSignal; readonly patienceMs?: number },
): Promise<string | null> {
  const command = stateScript(node, 'wait for the old instance', awaitScript, argsOf(node, place))
  let seen: RecoveryState | null = null
  let seenAt = Date.now()
  for (;;) {
    const told = await node.output(command)
    if (told.startsWith('ready')) return null
    if (told.startsWith('dead')) return told.slice(5)
    if (signal.aborted) throw new ReplctlError('interrupted', 'interrupted while the old instance recovered')
    const now = parseRecoveryState(told)
    if (seen === null || hasGotOn(seen, now)) {
      seen = now
      seenAt = Date.now()
    }
    // Where the host does not tell what they do, a long silence may be work.
    if (Date.now() - seenAt > patienceMs * (now.work === null ? 20 : 1))
      return `${now.log.trimEnd()}\n${standstill(now.log)}`
  }
}

function failed(node: Node, said: string): ReplctlError {
  return new ReplctlError('start-failed', `could not start the old instance on ${node.name} to read it`, {
    detail: `Its log ends: ${said.trim().split('\n').slice(-8).join('\n')}`,
    node: node.name,
  })
}
