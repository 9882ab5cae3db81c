import { asReplctlError, ReplctlError } from '../errors.ts'
import type { RunningCommand } from '../transport/transport.ts'
import { LineReader } from './line-reader.ts'
import { type Node, stateScript } from './node.ts'

/**
 * The script that holds the cluster's lock on one node, and keeps the operation's journal there.
 * The kernel's lock (flock) lives as long as this process; the process ends when its standard input does, which is
 * at once when replctl dies, and when no beat came for 40 s, which is when its machine or network vanished.
 * Where there is no flock (macOS, for the sandbox) a directory and the holder's pid take its place.
 */
const guardScript = `
lock="$state/lock"
say() { printf '%s\\n' "$1"; }
# The file is replaced as a whole: found empty, it would look like a beat of 1970 and end a lock that is well.
beat() { date +%s > "$state/beat.new" && mv -f "$state/beat.new" "$state/beat"; }
age() {
  last=$(cat "$state/beat" 2>/dev/null)
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
  while ! mkdir "$lock.d" 2>/dev/null; do
    old=$(cat "$lock.d/pid" 2>/dev/null)
    if [ -n "$old" ] && kill -0 "$old" 2>/dev/null; then held; fi
    mv "$lock.d" "$lock.dead.$$" 2>/dev/null && rm -rf "$lock.dead.$$"
  done
  echo $$ > "$lock.d/pid"
fi
{ echo $$; printf '%s\\n' "$2"; } > "$state/holder"
beat
(
  exec 9>&- </dev/null >/dev/null 2>&1
  while sleep 5; do
    kill -0 $$ 2>/dev/null || exit 0
    if [ "$(age)" -gt 40 ]; then kill -TERM $$; exit 0; fi
  done
) &
watch=$!
over() { kill "$watch" 2>/dev/null; rm -f "$state/holder" "$state/beat"; rm -rf "$lock.d"; exit 0; }
trap over TERM INT HUP PIPE
say "locked $(cat "$state/journal" 2>/dev/null)"
while IFS= read -r line; do
  case $line in
    beat) beat; say beat ;;
    journal*)
      if printf '%s\\n' "\${line#journal }" > "$state/journal.new"; then
        sync "$state/journal.new" 2>/dev/null
        mv -f "$state/journal.new" "$state/journal" && say ok || say failed
      else say failed; fi ;;
    clear) rm -f "$state/journal" && say ok || say failed ;;
    release) break ;;
  esac
done
over
`

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
  | { readonly is: 'locked'; readonly guard: Guard }
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
  writeJournal(text: string): Promise<void>
  clearJournal(): Promise<void>
  release(): Promise<void>
}

/** Tries to take the lock on one node; comes back at once either way. */
export async function tryGuard(node: Node, holder: Holder): Promise<GuardAnswer> {
  const running = await node.start(
    stateScript(node, 'hold the cluster lock', guardScript, [JSON.stringify(holder)]),
  )
  const lines = new LineReader(running, 'the holder of the cluster lock')
  const first = await lines.next(15_000)
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
  return { is: 'locked', guard: makeGuard(node, running, lines, found === '' ? null : found) }
}

function makeGuard(node: Node, running: RunningCommand, lines: LineReader, found: string | null): Guard {
  let isHeld = true
  running.finished.then(
    () => {
      isHeld = false
    },
    () => {
      isHeld = false
    },
  )
  let turn: Promise<unknown> = Promise.resolve()
  const ask = (line: string, expected: string): Promise<void> => {
    const work = turn.then(async () => {
      if (!isHeld) throw lockLost(node.name)
      try {
        await running.write(`${line}\n`)
        const answer = await lines.next(15_000)
        if (answer !== expected) throw lockLost(node.name, `It answered "${answer}".`)
      } catch (thrown) {
        throw thrown instanceof ReplctlError && thrown.code === 'lock-lost'
          ? thrown
          : lockLost(node.name, asReplctlError(thrown).message)
      }
    })
    turn = work.catch(() => undefined)
    return work
  }
  return {
    node: node.name,
    foundJournal: found,
    get isHeld() {
      return isHeld
    },
    beat: () => ask('beat', 'beat'),
    writeJournal: (text) => ask(`journal ${text}`, 'ok'),
    clearJournal: () => ask('clear', 'ok'),
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
    hint: 'Look at the cluster with "replctl status", then finish with "replctl resume".',
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
