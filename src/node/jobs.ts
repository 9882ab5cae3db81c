import type { Secret } from '../command.ts'
import { type Node, stateScript } from './node.ts'

/** A long command on a host that outlives the connection: it is found again by its name, and read by its log. */
export interface JobState {
  readonly isRunning: boolean
  /** Exit status; null while it runs, or where it was killed before it could say. */
  readonly status: number | null
  /** How far what is silent for long is (see {@link tellingScript}), whatever it counts; empty: nothing is told. */
  readonly pulse: string
  /** The end of its output. */
  readonly output: string
}

/**
 * For the script of a job: `telling METER COMMAND…` runs what says nothing for hours, as a verification does. Meanwhile the
 * function METER, given its pid, prints how far it is: what gets on is not taken for what stands still.
 */
export const tellingScript = `
telling() {
  meter=$1; shift
  "$@" &
  worker=$!
  pulse=\${0%/*}/pulse
  # It must not hold the job's lock: the job is over when its work is.
  ( while sleep 5 && kill -0 "$worker"; do "$meter" "$worker" > "$pulse.new" && mv "$pulse.new" "$pulse"; done ) 7>&- >/dev/null 2>&1 &
  teller=$!
  wait "$worker"
  ended=$?
  kill "$teller" 2>/dev/null
  return "$ended"
}
# Bytes that it has read; where they are not counted, the time that it has worked.
read_by() { sed -n '/^rchar:/p' "/proc/$1/io" 2>/dev/null || ps -o time= -p "$1"; }
`

/**
 * `$job` is the job's folder. Whether a job runs is told by the lock it holds, or by its pid where there is no flock. Whoever looks asks
 * for a share of the lock only, so that one who looks at the same moment is not taken for the job.
 */
const jobScript = `
job="$state/job-$2"
running() {
  if command -v flock >/dev/null 2>&1; then ! flock -s -n "$job/lock" true
  else [ -f "$job/pid" ] && kill -0 "$(cat "$job/pid")" 2>/dev/null; fi
}
`

const startScript = `${jobScript}
name=$2; shift 2
mkdir -p "$job"
touch "$job/lock"
if running; then exit 0; fi
rm -f "$job/status" "$job/output" "$job/pid" "$job/pulse"
cat > "$job/run"
launch=
command -v setsid >/dev/null 2>&1 && launch=setsid
$launch sh -c '
  job=$1; shift
  if command -v flock >/dev/null 2>&1; then
    exec 7>>"$job/lock"
    # Who waited for the end of the last one (a replctl that was killed) holds it for a moment yet.
    n=0
    until flock -n 7; do
      n=$((n + 1))
      [ $n -lt 50 ] || exit 75
      sleep 0.02 2>/dev/null || sleep 1
    done
    [ ! -f "$job/pid" ] || exit 75
  fi
  echo $$ > "$job/pid"
  sh "$job/run" "$@" > "$job/output" 2>&1
  echo $? > "$job/status.new"; mv "$job/status.new" "$job/status"
' job "$job" "$@" </dev/null >/dev/null 2>&1 &
n=0
while [ ! -f "$job/pid" ] && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.02 2>/dev/null || sleep 1; done
[ -f "$job/pid" ]
`

// A flock that knows no time limit (busybox) fails at once, with another status than that of a job that still runs.
const lookScript = `${jobScript}
if [ ! -d "$job" ]; then echo ended; echo none; echo; exit 0; fi
touch "$job/lock"
if [ "$3" != 0 ]; then
  flock -s -w "$3" -E 99 "$job/lock" true 2>/dev/null
  case $? in
    0 | 99) ;;
    *) if running; then sleep "$3" 2>/dev/null || sleep 1; fi ;;
  esac
fi
if running; then echo running; else echo ended; fi
cat "$job/status" 2>/dev/null || echo none
echo $(cat "$job/pulse" 2>/dev/null)
tail -c 3000 "$job/output" 2>/dev/null
:
`

// dash (Debian's sh) knows no "--" after "kill -TERM"; a group is "-PID" in every shell.
const stopScript = `${jobScript}
[ -d "$job" ] || exit 0
touch "$job/lock"
n=0
while running && [ $n -lt 200 ]; do
  pid=$(cat "$job/pid" 2>/dev/null)
  signal=TERM; [ $n -gt 100 ] && signal=KILL
  if [ -n "$pid" ]; then kill -$signal "-$pid" 2>/dev/null || kill -$signal "$pid" 2>/dev/null; fi
  n=$((n + 1)); sleep 0.05 2>/dev/null || sleep 1
done
if running; then exit 1; fi
rm -rf "$job"
`

/** Starts a job unless it runs already. `script` gets `args` as `$1`…; it goes in through standard input. */
export async function startJob(
  node: Node,
  name: string,
  script: string | Secret,
  args: readonly string[],
): Promise<void> {
  await node.output(stateScript(node, `start ${name}`, startScript, [name, ...args], script))
}

/**
 * Looks at a job, whoever started it.
 * @param waitMs where it runs, the look waits for its end for so long: one that is over is known at once, and a wait costs the
 * host less than many looks
 */
export async function lookAtJob(node: Node, name: string, waitMs = 0): Promise<JobState> {
  const args = [name, String(waitMs / 1000)]
  const output = await node.output(
    stateScript(node, `look at ${name}`, lookScript, args, undefined, { onlyLooks: true }),
  )
  const [running = '', status = '', pulse = '', ...rest] = output.split('\n')
  return {
    isRunning: running === 'running',
    status: /^\d+$/.test(status) ? Number(status) : null,
    pulse,
    output: rest.join('\n'),
  }
}

/** Ends a job with everything it started, and forgets it. */
export async function stopJob(node: Node, name: string): Promise<void> {
  await node.output(stateScript(node, `stop ${name}`, stopScript, [name]))
}
