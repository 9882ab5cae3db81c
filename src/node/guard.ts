import { endedKept } from '../cluster/unfinished.ts'
import type { Command } from '../command.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import type { CommandResult, RunningCommand } from '../transport/transport.ts'
import { factsScript } from './facts-script.ts'
import { LineReader } from './line-reader.ts'
import { type Node, stateScript } from './node.ts'
import { carryOutScript, readResult, requestOf } from './shell-request.ts'

/**
 * The script that holds the cluster's lock on one node, and keeps the operation's journal there.
 * The kernel's lock (flock) lives as long as this process; the process ends when its standard input does, which is
 * at once when replctl dies, and when no beat came for 40 s, which is when its machine or network vanished.
 * Where there is no flock (macOS, for the sandbox) a link that names the holder's pid takes its place.
 * Nothing of the lock itself is ever written: a full disk neither ends it nor keeps it from being taken. Who holds it and the
 * journal are then missing there; other nodes have them.
 * With `$3` it says what the survey wants of the host as soon as the lock is held: one command less, and nothing
 * that it says can be older than the lock. Later looks and quick commands go the same way: a shell that runs already costs
 * no login, and what it changes it changes while it holds the lock.
 */
const guardScript = `
lock="$state/lock"
say() { printf '%s\\n' "$1"; }
# An empty file: its time of change is the beat.
mark_beat() { true 2>/dev/null > "$state/beat"; }
age() {
  last=$(stat -c %Y "$state/beat" 2>/dev/null || stat -f %m "$state/beat" 2>/dev/null)
  case $last in ''|*[!0-9]*) echo 0 ;; *) echo "$(( $(date +%s) - last ))" ;; esac
}
held() {
  printf 'held %s %s\\n' "$(age)" "$(sed 1d "$state/holder" 2>/dev/null)"
  exit 0
}
if command -v flock >/dev/null 2>&1; then
  exec 9>>"$lock"
  flock -n 9 || held
else
  # A link is made with its holder's pid in it: there is no moment at which it is nobody's.
  # That of a dead process ($1) is removed by one alone, who has a mark of that name: another one that found it dead a moment
  # ago would remove what somebody has taken since. The mark of one that died over it is succeeded to by a mark of both names.
  remove_dead() {
    dead=$1 mark=$lock.dead.$1
    shift
    until ln -s $$ "$mark" 2>/dev/null; do
      by=$(readlink "$mark") || return
      if kill -0 "$by" 2>/dev/null; then return; fi
      set -- "$@" "$mark"
      mark=$mark.$by
    done
    if [ "$(readlink "$lock.pid")" = "$dead" ] && ! kill -0 "$dead" 2>/dev/null; then rm -f "$lock.pid"; fi
    rm -f "$@" "$mark"
  }
  tries=0
  until ln -s $$ "$lock.pid" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "cannot make $lock.pid" >&2; exit 73; }
    old=$(readlink "$lock.pid") || continue
    if kill -0 "$old" 2>/dev/null; then held; fi
    remove_dead "$old"
    [ $tries -lt 10 ] || sleep 0.02 2>/dev/null || sleep 1
  done
fi
watch= own_link=
[ ! -L "$lock.pid" ] || own_link=$lock.pid
# Each beat begins the 40 s anew.
await_beat() {
  [ -z "$watch" ] || kill "$watch" 2>/dev/null
  (
    exec 9>&- </dev/null >/dev/null 2>&1
    trap 'kill "$nap"; exit 0' TERM
    n=0
    while [ $n -lt 8 ]; do
      sleep 5 & nap=$!
      wait "$nap"
      kill -0 $$ || exit 0
      n=$((n + 1))
    done
    kill -TERM $$
  ) &
  watch=$!
}
over() { [ -z "$watch" ] || kill "$watch" 2>/dev/null; rm -f "$state/holder" "$state/beat" \${own_link:+"$own_link"}; exit 0; }
mark_beat
{ echo $$; printf '%s\\n' "$2"; } 2>/dev/null > "$state/holder"
trap over TERM INT HUP PIPE
journal=
[ -r "$state/journal" ] && IFS= read -r journal < "$state/journal"
look() (
  exec 9>&- </dev/null
  ${factsScript}
)
data_directory=$4 bin_directory=$5
look_around() {
  look "$1" "$data_directory" "$bin_directory" "$2"
  say '@@@'
}
${carryOutScript}
note_ended() {
  { tail -n ${endedKept - 1} "$state/ended" 2>/dev/null; printf '%s\\n' "$1"; } 2>/dev/null > "$state/ended.new" &&
    mv -f "$state/ended.new" "$state/ended"
}
lay() { printf '%s\\n' "$1" 2>/dev/null > "$state/$2" && { sync "$state/$2" 2>/dev/null || :; }; }
take() { if mv -f "$state/$1" "$state/journal"; then say ok; else say failed; fi; }
again=quick
case $3 in room|brief) again=quickest ;; esac
say "locked $journal"
if [ -n "$3" ]; then look_around "$1" "\${3#full}"; fi
await_beat
while IFS= read -r line; do
  case $line in
    ping) say pong ;;
    beat) await_beat; mark_beat; say beat ;;
    look) look_around "$1" "$again" ;;
    run*) carry_out $line || break ;;
    journal*)
      if lay "\${line#journal }" journal.new; then take journal.new; else say failed; fi ;;
    prepare*)
      if lay "\${line#prepare }" journal.next; then say ok; else say failed; fi ;;
    take) take journal.next ;;
    ended*) note_ended "\${line#ended }"; rm -f "$state/journal.next"; say ok ;;
    clear*)
      [ "$line" = clear ] || note_ended "\${line#clear }"
      rm -f "$state/journal" "$state/journal.next" && say ok || say failed ;;
    release) break ;;
  esac
done
over
`

/** How much of a host is looked at first; see `factsScript`. */
export type LookDepth = 'full' | 'room' | 'brief'

/** Who holds a cluster: shown to whoever comes second. */
export interface Holder {
  readonly user: string
  readonly host: string
  readonly pid: number
  readonly command: string
  /** ISO 8601. */
  readonly since: string
}

export type GuardAnswer =
  | {
      readonly is: 'locked'
      readonly guard: Guard
      /** What `factsScript` says, where it was asked for; null else. */
      readonly facts: Promise<string> | null
    }
  | {
      readonly is: 'held'
      readonly node: string
      readonly holder: Holder | null
      readonly beatAgeSeconds: number
    }

/** The lock on one node, held through one channel. */
export interface Guard {
  readonly node: string
  /** The journal that an earlier, unfinished operation left here. */
  readonly foundJournal: string | null
  readonly isHeld: boolean
  /** Proves that the holder still runs on the node. @throws {ReplctlError} `lock-lost` */
  beat(): Promise<void>
  /** The same and no sign of life: nothing is written for it. @throws {ReplctlError} `lock-lost` */
  ping(): Promise<void>
  /** What `factsScript` says of what changes within one command. @throws {ReplctlError} `lock-lost` */
  look(): Promise<string>
  /** As `ping`, where it did not answer just now. @throws {ReplctlError} `lock-lost` */
  proveRecent(): Promise<void>
  /** Runs a quick command in its own shell. @throws {ReplctlError} `lock-lost`: then it may have run or not */
  run(command: Command): Promise<CommandResult>
  /** Gives whether it could be written: not on a full disk, say. Any answer proves as much as a beat. */
  writeJournal(text: string): Promise<boolean>
  /** Lays a later journal ready on the disk: to write just that one then takes no more than a rename. */
  prepareJournal(text: string): Promise<void>
  /** Removes it, and writes down which operations are over. */
  clearJournal(ended?: readonly string[]): Promise<void>
  /** Writes that down alone: another journal lies there by now. */
  noteEnded(ended: readonly string[]): Promise<void>
  release(): Promise<void>
}

/** Tries to take the lock on one node; comes back at once either way. `beginSignal`: as long as the host has begun nothing. */
export async function tryGuard(
  node: Node,
  holder: Holder,
  depth?: LookDepth,
  beginSignal?: AbortSignal,
): Promise<GuardAnswer> {
  const { dataDir, binDir } = node.settings.postgres
  const running = await node.start(
    stateScript(node, 'hold the cluster lock', guardScript, [
      ...[JSON.stringify(holder), depth ?? '', dataDir, binDir ?? ''],
    ]),
    // Other nodes are locked meanwhile, and without a beat their locks die after 40 s.
    { beginSignal, beginWithinMs: answerMs },
  )
  const lines = new LineReader(running, 'the holder of the cluster lock')
  const first = await lines.next(answerMs)
  if (first.startsWith('held ')) {
    const [, age = '0', ...rest] = first.split(' ')
    return {
      is: 'held',
      node: node.name,
      holder: readHolder(rest.join(' ')),
      beatAgeSeconds: Number(age),
    }
  }
  const found = first.replace(/^locked ?/, '')
  const facts = depth === undefined ? null : readFacts(lines)
  // Asked only when it has said all of that.
  const ready = facts?.then(() => undefined) ?? Promise.resolve()
  return {
    is: 'locked',
    guard: makeGuard(node, running, lines, found === '' ? null : found, ready),
    facts,
  }
}

const answerMs = 15_000
/** A quick command may meet a disk that is slow to sync; no beat is heard meanwhile, and without one the lock dies after 40 s. */
const longestRunMs = 30_000

/** Without a beat the lock dies after 40 s: whoever was heard of later than this still has it. */
const recentMs = 30_000

async function readFacts(lines: LineReader): Promise<string> {
  const deadline = Date.now() + answerMs
  const said: string[] = []
  for (;;) {
    const line = await lines.next(deadline - Date.now())
    if (line === '@@@') return `${said.join('\n')}\n`
    said.push(line)
  }
}

function makeGuard(
  node: Node,
  running: RunningCommand,
  lines: LineReader,
  found: string | null,
  ready: Promise<void>,
): Guard {
  let isHeld = true
  let answeredAt = Date.now()
  let prepared: string | null = null
  const isGone = () => {
    isHeld = false
  }
  running.finished.then(isGone, isGone)
  // After one answer that did not come in time, or is another one, each is taken for that of the question before: a stale word
  // would prove the lock, and stand in front of a file's text. Such a guard keeps no lock any more.
  const loseStep = () => {
    isGone()
    running.kill()
  }
  ready.catch(loseStep)
  let turn: Promise<unknown> = ready.catch(() => undefined)
  const ask = <T>(line: string, read: () => Promise<T>): Promise<T> => {
    const work = turn.then(async () => {
      if (!isHeld) throw lockLost(node.name)
      try {
        await running.write(`${line}\n`)
        const answer = await read()
        answeredAt = Date.now()
        return answer
      } catch (thrown) {
        loseStep()
        throw lockLost(node.name, asReplctlError(thrown).message)
      }
    })
    turn = work.catch(() => undefined)
    return work
  }
  const ping = async () => void (await tell('ping', 'pong'))
  const nextLine = () => lines.next(answerMs)
  const tell = (line: string, ...expected: readonly string[]): Promise<string> =>
    ask(line, async () => {
      const answer = await nextLine()
      if (!expected.includes(answer)) {
        throw new ReplctlError('remote-command-failed', `It answered "${answer}" to "${line.split(' ')[0]}".`)
      }
      return answer
    })
  return {
    node: node.name,
    foundJournal: found,
    get isHeld() {
      return isHeld
    },
    beat: async () => void (await tell('beat', 'beat')),
    ping,
    proveRecent: async () => {
      if (!isHeld) throw lockLost(node.name)
      if (Date.now() - answeredAt > recentMs) await ping()
    },
    look: () => ask('look', () => readFacts(lines)),
    run: (command) => {
      const { text, token } = requestOf(command)
      return ask(text, () => readResult(lines, token, longestRunMs))
    },
    writeJournal: async (text) => {
      const isReady = text === prepared
      prepared = null
      if (isReady && (await tell('take', 'ok', 'failed')) === 'ok') return true
      return (await tell(`journal ${text}`, 'ok', 'failed')) === 'ok'
    },
    prepareJournal: async (text) => {
      prepared = null
      if ((await tell(`prepare ${text}`, 'ok', 'failed')) === 'ok') prepared = text
    },
    clearJournal: async (ended = []) => {
      for (const id of ended) await tell(`clear ${id}`, 'ok')
      if (ended.length === 0) await tell('clear', 'ok')
    },
    noteEnded: async (ended) => {
      for (const id of ended) await tell(`ended ${id}`, 'ok')
    },
    release: async () => {
      if (isHeld) await running.write('release\n').catch(() => undefined)
      running.endInput()
      await Promise.race([running.finished.catch(() => undefined), wait(2_000)])
    },
  }
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms).unref())

function lockLost(node: string, detail?: string): ReplctlError {
  return new ReplctlError('lock-lost', `the cluster lock on ${node} was lost`, {
    detail: detail ?? 'The process that held it there has ended.',
    hint: 'Look at the cluster with "replctl status", then run the command again.',
    node,
  })
}

function readHolder(text: string): Holder | null {
  try {
    return JSON.parse(text) as Holder
  } catch {
    return null
  }
}
