import { ReplctlError } from '../errors.ts'
import { type ControlData, parseControlData } from '../postgres/control-data.ts'
import { LineReader } from './line-reader.ts'
import { type Node, stateScript } from './node.ts'

/**
 * Waits for the word, then stops the primary and tells the moment at which its shutdown checkpoint is on disk: nothing it
 * ever confirmed can follow that, and nobody has to wait until the last process has gone. The standby signal is there
 * before the stop, and durable before it is told: whatever starts this instance from now on starts a standby. Between the
 * word and the signal to the postmaster stands nothing that could wait.
 */
const stopScript = `
data=$2 bin=$3 pid=$4 prepared=$5
nl='
'
is_ours() {
  IFS= read -r first < "$data/postmaster.pid" && [ "$first" = "$pid" ] && kill -0 "$pid"
} 2>/dev/null
tell() { printf '%s\\n%s\\n@@\\n' "$1" "$2"; exit 0; }
is_ours || tell stranger ''
if [ -n "$prepared" ] && [ ! -f "$state/$prepared" ] && [ ! -f "$data/recovery.conf" ]; then tell unprepared ''; fi
# A trigger file that an earlier promotion left would promote it again as soon as it starts.
rm -f -- "$state/promote"
echo ready
IFS= read -r word
[ "$word" = go ] || exit 0
is_ours || tell stranger ''
if [ -n "$prepared" ]; then
  left="$data/recovery.conf"
  [ ! -f "$state/$prepared" ] || mv -f -- "$state/$prepared" "$left" || tell unprepared ''
else left="$data/standby.signal"; printf '' > "$left" || tell unprepared ''; fi
kill -INT "$pid" || tell stranger ''
{ sync "$left" "$data" 2>/dev/null || sync; } &
syncing=$! turns=0
while :; do
  alive=yes
  kill -0 "$pid" 2>/dev/null || alive=no
  seen=$("$bin/pg_controldata" "$data" 2>&1)
  case $seen in
    *WARNING*) ;;
    *"cluster state:"*" shut down$nl"*) wait "$syncing"; tell shut-down "$seen" ;;
    *) [ $alive = yes ] || { wait "$syncing"; tell ended "$seen"; } ;;
  esac
  turns=$((turns + 1))
  # Nobody listens any more: writing ends this script.
  [ $((turns % 100)) -ne 0 ] || echo waiting || exit 0
  # Most stops are over by then; a longer one need not be watched so closely.
  [ $turns -lt 30 ] || sleep 0.005 2>/dev/null || sleep 1
done
`

/** A signal of the operator's is noticed at least this often. */
const lookUpMs = 200

/** How a primary went: its shutdown checkpoint is written, or it ended without one. */
export interface Stopped {
  readonly is: 'shut-down' | 'ended'
  readonly control: ControlData
}

export interface StopOptions {
  readonly timeoutMs: number
  readonly signal: AbortSignal
  /** Called now and then while its shutdown checkpoint is not there yet. */
  onWait(): void
}

/** A running primary that is ready to be stopped within one message. */
export interface HeldPrimary {
  /**
   * Stops it in fast mode. @throws {ReplctlError} `stop-failed` when it does not end in time, or is not the one that was
   * held; `connection-lost` when what became of it is not known; `interrupted`
   */
  stop(options: StopOptions): Promise<Stopped>
  /** Lets go of it, told or not. */
  release(): void
}

/**
 * Prepares the stop of the postmaster with this pid. `preparedFile`: the recovery.conf of version 11 that waits in the state
 * directory; '' where standby.signal does it.
 */
export async function holdPrimary(
  node: Node,
  { pid, binDirectory, preparedFile }: { pid: number; binDirectory: string; preparedFile: string },
): Promise<HeldPrimary> {
  const args = [node.settings.postgres.dataDir, binDirectory, String(pid), preparedFile]
  const running = await node.start(stateScript(node, 'stop PostgreSQL when told', stopScript, args))
  const lines = new LineReader(running, 'what watches the stop')
  const release = () => running.kill()
  const first = await lines.next(15_000)
  if (first !== 'ready') {
    release()
    throw cannotStop(node.name, first)
  }
  return {
    release,
    stop: async ({ timeoutMs, signal, onWait }) => {
      const deadline = performance.now() + timeoutMs
      await running.write('go\n')
      for (;;) {
        if (signal.aborted) throw new ReplctlError('interrupted', 'interrupted by a signal')
        const left = deadline - performance.now()
        if (left <= 0) throw tooSlow(node.name, timeoutMs)
        const line = await lines.next(Math.min(left, lookUpMs)).catch((thrown) => {
          if (thrown instanceof ReplctlError && thrown.code === 'timeout') return 'waiting'
          throw thrown
        })
        if (line === 'waiting') onWait()
        else if (line === 'shut-down' || line === 'ended')
          return { is: line, control: await readControl(lines) }
        else throw cannotStop(node.name, line)
      }
    },
  }
}

async function readControl(lines: LineReader): Promise<ControlData> {
  const text: string[] = []
  for (;;) {
    const line = await lines.next(5_000)
    if (line === '@@') return parseControlData(text.join('\n'))
    text.push(line)
  }
}

function cannotStop(node: string, word: string): ReplctlError {
  const because =
    word === 'stranger'
      ? 'Its postmaster is not the one that was seen a moment ago: it was stopped or restarted meanwhile.'
      : 'What lets it come up only as a standby could not be written into its data directory.'
  return new ReplctlError('stop-failed', `did not stop PostgreSQL on ${node}`, { detail: because, node })
}

function tooSlow(node: string, timeoutMs: number): ReplctlError {
  return new ReplctlError('stop-failed', `PostgreSQL on ${node} did not shut down in time`, {
    detail: `Its shutdown checkpoint was not written within ${Math.round(timeoutMs / 1000)} s.`,
    hint: `Look at its log and its disk; --timeout gives it longer.`,
    node,
  })
}
