import type { NodeSettings } from '../cluster/inventory.ts'
import { shellScript } from '../command.ts'
import { commandFailed, type Node } from './node.ts'

export interface LifeProbe {
  readonly binDirectory: string
  /** Whom to look for. */
  readonly name: string
  readonly address: string
  readonly port: number
  /** How long its port may take to answer. */
  readonly limitSeconds: number
  /** The node's own walreceiver, where it receives from there; it reports at least every so many seconds (0: never). */
  readonly receiver: { readonly pid: number; readonly reportSeconds: number } | null
}

/** What one node sees of another one. */
export interface SeenLife {
  /** `held`: the kernel took the connection for somebody who holds the port and says nothing. */
  readonly port: 'answers' | 'held' | 'silent'
  /** Whether what the walreceiver reports is acknowledged over there; null where it has no connection. */
  readonly stream: 'acknowledged' | 'silent' | null
}

/**
 * `connections_of PID`: for each connection of a process that is established, what was not acknowledged yet, how often that was sent
 * again, and which timer runs. Prints nothing where there is no /proc.
 */
export const connectionsScript = `
connections_of() {
  held=" $(ls -l "/proc/$1/fd" 2>/dev/null | sed -n 's/.*socket:\\[\\([0-9]*\\)\\]$/\\1/p' | tr '\\n' ' ') "
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    awk -v held="$held" '$4 == "01" && index(held, " " $10 " ") { split($5, queue, ":"); print queue[1], $7, $6 }'
}
`

/**
 * Knocks at a server's port, and watches the connection of a walreceiver. An idle primary sends nothing for up to half a minute, but
 * its kernel acknowledges each report that a standby sends it, for as long as a process holds the connection: what was sent and not
 * acknowledged is left in tx_queue. What is empty for longer than a report takes has been acknowledged meanwhile.
 * Of pg_isready, 0 accepts connections, 1 rejects them (starting, stopping); 2: no answer. It is asked by TCP and one message of the
 * server's: what libpq would try first, TLS and GSS, takes several round trips more.
 * @see proc_net_tcp in the kernel's documentation: column 4 is 01 for ESTABLISHED, 6 begins with 04 where the other side takes no more
 * for now, 7 counts what was sent again
 */
const probeScript = `
export PGSSLMODE=disable PGGSSENCMODE=disable
limit=$4 receiver=$5 report=$6
${connectionsScript}
watch_stream() {
  tenths=0 again=0
  while :; do
    set -- $(connections_of "$receiver")
    if [ $# -lt 3 ]; then return; fi
    case $1,$2,$3 in
      00000000,* | *,04:*) again=0 ;;
      *,00000000,*) ;;
      *) again=$((again + 1)) ;;
    esac
    if [ $again -ge 3 ]; then echo stream silent; return; fi
    if [ $again -eq 0 ] && [ $tenths -ge "$report" ]; then echo stream acknowledged; return; fi
    if sleep 0.1 2>/dev/null; then tenths=$((tenths + 1)); else sleep 1; tenths=$((tenths + 10)); fi
  done
}
stream=
if [ -n "$receiver" ]; then watch_stream & stream=$!; fi
"$1/pg_isready" -q -h "$2" -p "$3" -t 5 &
asked=$!
{
  sleep "$limit" 3>&- || sleep 1 3>&-
  [ -z "$(connections_of "$asked")" ] || echo held >&3
  # Before its end: whoever waits for that ends this at once.
  echo late >&3
  kill -KILL "$asked"
} 3>&1 >/dev/null 2>&1 &
watch=$!
wait "$asked" 2>/dev/null
status=$?
kill "$watch" 2>/dev/null
[ -z "$stream" ] || wait "$stream"
exit $status
`

/**
 * Looks from a node, where the reports of its walreceiver are seldom as long as they take, else as long as `limitSeconds`.
 * @throws {ReplctlError} `remote-command-failed` where it could not look
 */
export async function probeLife(from: Node, probe: LifeProbe): Promise<SeenLife> {
  const { receiver } = probe
  const tenths = receiver === null ? 0 : tenthsToWait(receiver.reportSeconds)
  const command = shellScript(`ask ${probe.name} for a sign of life`, probeScript, [
    ...[probe.binDirectory, probe.address, String(probe.port), String(probe.limitSeconds)],
    ...[receiver === null ? '' : String(receiver.pid), String(tenths)],
  ])
  const result = await from.run(command, { timeoutMs: 3_000 + tenths * 200 })
  const said = result.stdout.split('\n')
  const isLate = said.includes('late')
  if (!isLate && ![0, 1, 2].includes(result.status ?? -1)) throw commandFailed(from.name, command, result)
  const hasAnswered = result.status === 0 || result.status === 1
  return {
    port: hasAnswered ? 'answers' : said.includes('held') ? 'held' : 'silent',
    stream: said.includes('stream acknowledged')
      ? 'acknowledged'
      : said.includes('stream silent')
        ? 'silent'
        : null,
  }
}

/** One report and a little more. Who reports seldom or never is believed to be heard after the usual time. */
function tenthsToWait(reportSeconds: number): number {
  const usual = 10
  return 10 * (reportSeconds === 0 ? usual : Math.min(usual, reportSeconds)) + 3
}

/**
 * How long the server's port may take to answer, while nobody can write: a part of what the operator gives its host to, so that
 * whoever has a slow network and says so is not passed over.
 */
export function probeSeconds({ ssh }: NodeSettings): number {
  return Math.min(1, Math.max(0.3, (0.3 * ssh.connectTimeoutMs) / 1_000))
}
