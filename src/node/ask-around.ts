import type { NodeFacts, PeerAnswer, Survey } from '../cluster/facts.ts'
import type { Inventory } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { passfileOf } from '../cluster/node-configuration.ts'
import { clusterIdentifier } from '../cluster/record.ts'
import type { UnknownAddress } from '../cluster/unknown-leader.ts'
import { shellScript } from '../command.ts'
import { buildConninfo } from '../postgres/conninfo.ts'
import type { TimelineId } from '../postgres/lsn.ts'
import type { Node } from './node.ts'
import { connectionsScript, probeSeconds } from './probe-life.ts'

/**
 * Asks one server after the other side by side, each over a replication connection: who it is, and whether it leads, as the start guard
 * does. One whose host does not take the connection has only so long; once it is taken, the answer may be slower.
 * Prints a line for each: name, `held` where a process took the connection, what was said on one line.
 */
const askScript = `
bin=$1
shift
${connectionsScript}
ask() {
  said=$(
    {
      "$bin/psql" -X -A -t -w -d "$3" -c IDENTIFY_SYSTEM -c 'SHOW transaction_read_only' </dev/null 2>&1 3>&- &
      asked=$!
      {
        sleep "$2" 3>&- || sleep 1 3>&-
        if [ -n "$(connections_of "$asked")" ]; then echo held >&3; sleep 2 3>&-; fi
        kill -KILL "$asked"
      } >/dev/null 2>&1 &
      watch=$!
      wait "$asked" 2>/dev/null
      kill "$watch" 2>/dev/null
    } 3>&1
  )
  printf '%s\\t%s\\n' "$1" "$(printf %s "$said" | tr '\\n\\t' '~ ')"
}
while [ $# -ge 3 ]; do
  ask "$1" "$2" "$3" &
  shift 3
done
wait
`

/**
 * The survey, with what those who answer see of those whose hosts cannot be reached: each that can asks each of them at its port. It
 * takes hardly longer than `probeSeconds` where they are off. Who cannot ask sees nothing.
 */
export async function askAround(
  inventory: Inventory,
  nodes: ReadonlyMap<NodeName, Node>,
  survey: Survey,
): Promise<Survey> {
  const silent = inventory.nodes.filter(({ name }) =>
    survey.some((facts) => facts.name === name && facts.unreachable !== null),
  )
  const askers = survey.filter(
    (facts) => facts.unreachable === null && facts.hasPassfile && facts.binaries !== null,
  )
  if (silent.length === 0 || askers.length === 0) return survey
  const answers = await Promise.all(
    askers.map(async (facts) => {
      const node = nodes.get(facts.name)
      const peers = silent.map((peer) => ({
        ...{
          name: peer.name,
          host: peer.address,
          port: peer.postgres.port,
          limitSeconds: probeSeconds(peer),
        },
      }))
      return node === undefined ? [] : await askFrom(inventory, node, facts, peers).catch(() => [])
    }),
  )
  const ours = clusterIdentifier(survey)
  return survey.map((facts) => {
    if (facts.unreachable === null) return facts
    const answer = bestAnswer(
      answers.flat().flatMap(({ of, answer }) => (of === facts.name ? [answer] : [])),
      ours,
    )
    return answer === undefined ? facts : { ...facts, seenByOthers: answer }
  })
}

/**
 * What answers where standbys are told to receive from and the inventory knows nobody: each is asked by the one that is told so, for
 * an address may mean something there alone. Who cannot ask hears nothing.
 */
export async function askAddresses(
  inventory: Inventory,
  nodes: ReadonlyMap<NodeName, Node>,
  survey: Survey,
  addresses: readonly UnknownAddress[],
): Promise<readonly (PeerAnswer & { readonly at: string })[]> {
  const ours = clusterIdentifier(survey)
  const heard = await Promise.all(
    addresses.map(async ({ standby, host, port }) => {
      const [node, facts] = [nodes.get(standby), survey.find(({ name }) => name === standby)]
      if (node === undefined || facts === undefined || facts.binaries === null) return []
      const at = `${host}:${port}`
      const peer = { name: at, host, port, limitSeconds: probeSeconds(node.settings) }
      const answers = await askFrom(inventory, node, facts, [peer]).catch(() => [])
      const best = bestAnswer(
        answers.map(({ answer }) => answer),
        ours,
      )
      return best === undefined ? [] : [{ ...best, at }]
    }),
  )
  return heard.flat()
}

interface Peer {
  readonly name: string
  readonly host: string
  readonly port: number
  readonly limitSeconds: number
}

interface Heard {
  readonly of: string
  readonly answer: PeerAnswer
}

async function askFrom(
  inventory: Inventory,
  from: Node,
  facts: NodeFacts,
  silent: readonly Peer[],
): Promise<readonly Heard[]> {
  const conninfoTo = (peer: Peer) =>
    buildConninfo({
      host: peer.host,
      port: String(peer.port),
      user: inventory.replication.user,
      passfile: passfileOf(facts.home, from.settings),
      replication: 'true',
      application_name: 'replctl',
      connect_timeout: '5',
      // A standby tells itself from a primary by transaction_read_only, once the default is known to be off.
      options: '-c default_transaction_read_only=off',
    })
  const command = shellScript('ask those that cannot be reached who leads', askScript, [
    facts.binaries?.directory ?? '',
    ...silent.flatMap((peer) => [peer.name, String(peer.limitSeconds), conninfoTo(peer)]),
  ])
  const { stdout } = await from.run(command, { timeoutMs: 6_000 })
  return stdout.split('\n').flatMap((line) => {
    const [name, said = ''] = line.split('\t')
    const peer = silent.find((one) => one.name === name)
    const answer = peer === undefined ? null : readAnswer(from.name, said)
    return peer === undefined || answer === null ? [] : [{ of: peer.name, answer }]
  })
}

/** Reads what a server said, its lines joined by `~`; null: nobody is there, as far as can be told. */
export function readAnswer(from: NodeName, said: string): PeerAnswer | null {
  const identity = /(?:^|~)(\d+)\|(\d+)\|[^~]*~(on|off)(?:~|$)/.exec(said)
  if (identity !== null) {
    const [, systemIdentifier = '', timeline, readOnly] = identity
    return {
      ...{ from, systemIdentifier, timeline: Number(timeline) as TimelineId, said: '' },
      role: readOnly === 'on' ? 'standby' : 'primary',
    }
  }
  const isHeld = /(?:^|~)held(?:~|$)/.test(said)
  const fatal = /FATAL: +([^~]*)/.exec(said)?.[1]
  if (!isHeld && fatal === undefined) return null
  return {
    ...{ from, role: 'unknown', systemIdentifier: null, timeline: null },
    said: fatal ?? 'it takes connections and says nothing',
  }
}

/** What tells most comes first; what another cluster says is nobody's. */
function bestAnswer(answers: readonly PeerAnswer[], ours: string | null): PeerAnswer | undefined {
  const own = answers.filter(
    ({ systemIdentifier }) => systemIdentifier === null || ours === null || systemIdentifier === ours,
  )
  const isForeign = own.length < answers.length
  const rank = { primary: 0, standby: 1, unknown: 2 }
  const [best] = own.toSorted((a, b) => rank[a.role] - rank[b.role] || (b.timeline ?? 0) - (a.timeline ?? 0))
  return isForeign && best?.role === 'unknown' ? undefined : best
}
