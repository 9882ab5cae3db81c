import { ReplctlError } from '../errors.ts'
import { lsnDistance } from '../postgres/lsn.ts'
import { standbyParityParameters } from '../postgres/settings.ts'
import { configuredApplicationName, configuredUpstream } from './configured-upstream.ts'
import type { NodeFacts } from './facts.ts'
import { senderOf } from './find-upstream.ts'
import { refuseInsufficient } from './insufficient-settings.ts'
import type { Inventory, NodeSettings } from './inventory.ts'
import { delayMsOf } from './topology.ts'

/** A standby that is to lead, and the primary that it is to take over from, as they are now. */
export interface Succession {
  readonly primary: NodeFacts
  readonly candidate: NodeFacts
  readonly settings: NodeSettings
  readonly inventory: Inventory
}

/**
 * Why this standby cannot take over from the running primary without loss and at once; null if it can. Each reason has a
 * code of its own; what cannot get better by waiting comes first.
 */
export function judgeSuccessor(succession: Succession): ReplctlError | null {
  return (
    notMeantToLead(succession) ??
    settingsTooLow(succession.candidate, succession.primary) ??
    replayPaused(succession) ??
    lagTooHigh(succession) ??
    notStreaming(succession)
  )
}

/**
 * The inventory's own word (`promotable: false`, or a replay that is late on purpose), or a delay that the instance goes by: each
 * commit up to the shutdown checkpoint of the primary would wait for it, with nobody to write to meanwhile.
 */
export function notMeantToLead({ candidate, settings }: Pick<Succession, 'candidate' | 'settings'>) {
  const { name } = candidate
  const refused = (because: string, hint: string) =>
    new ReplctlError('not-promotable', `cannot switch over to ${name}: ${because}`, { hint, node: name })
  const another = 'Name another standby, or change the inventory.'
  if (!settings.promotable) return refused('the inventory says promotable: false', another)
  if (settings.delayMs > 0)
    return refused(`it replays ${settings.delayMs / 1000} s late on purpose (delay)`, another)
  const liveMs = delayMsOf({ facts: candidate, settings })
  if (liveMs === 0) return null
  return refused(
    `it still replays ${liveMs / 1000} s late (recovery_min_apply_delay), and the inventory wishes no delay`,
    `Have that set: replctl add-standby ${name}. Then run the command again.`,
  )
}

/**
 * A node that replays another's WAL must not have any of these settings lower: its replay would stop. Judged both ways
 * before roles are exchanged, because each of the two will replay the other's.
 */
export function settingsTooLow(standby: NodeFacts, primary: NodeFacts): ReplctlError | null {
  const low = standbyParityParameters.flatMap((name) => {
    const [own, needed] = [standby, primary].map((facts) => facts.instance?.settings[name]?.value)
    const isLow = own !== undefined && needed !== undefined && Number(own) < Number(needed)
    return isLow ? [{ name, own, needed }] : []
  })
  const [first] = low
  if (first === undefined) return null
  const names = low.map(({ name }) => name).join(', ')
  return new ReplctlError(
    'settings-too-low',
    `${names} ${low.length === 1 ? 'is' : 'are'} lower on ${standby.name} than on ${primary.name}`,
    {
      detail: `${low.map(({ name, own, needed }) => `${name} is ${own} on ${standby.name} and ${needed} on ${primary.name}`).join('; ')}. A standby stops replaying when such a setting is lower than on its primary.`,
      hint: `Give both the same value (postgres.parameters of the inventory) and restart the one that is lower, ${standby.name}.`,
      node: standby.name,
    },
  )
}

function replayPaused({ candidate }: Succession): ReplctlError | null {
  if (candidate.instance?.isReplayPaused !== true) return null
  const refusal = refuseInsufficient(candidate, `cannot switch over to ${candidate.name}`)
  if (refusal !== null) return refusal
  return new ReplctlError('replay-paused', `cannot switch over to ${candidate.name}: its replay is paused`, {
    detail: `It has received ${candidate.instance.receiveLsn} and replayed ${candidate.instance.replayLsn}.`,
    hint: 'Resume it there: SELECT pg_wal_replay_resume();',
    node: candidate.name,
  })
}

function lagTooHigh({ primary, candidate, inventory }: Succession): ReplctlError | null {
  const maxLagBytes = inventory.replication.maxCandidateLagBytes
  const [from, to] = [candidate.instance?.replayLsn ?? null, primary.instance?.currentLsn ?? null]
  if (from === null || to === null) return null
  const lagBytes = lsnDistance(from, to)
  if (lagBytes <= maxLagBytes) return null
  return new ReplctlError('lag-too-high', `cannot switch over to ${candidate.name}: it is too far behind`, {
    detail: `It has replayed ${from}, ${primary.name} is at ${to}: ${lagBytes} bytes. replication.max_candidate_lag allows ${maxLagBytes}.`,
    hint: 'Wait until it has caught up ("replctl status" shows the lag), or name another standby.',
    node: candidate.name,
  })
}

/** It receives from this very primary, on its timeline, as both of them say. */
function notStreaming(succession: Succession): ReplctlError | null {
  const { primary, candidate, settings, inventory } = succession
  const { name } = candidate
  const row = primary.instance?.replication.find(
    (one) => one.applicationName === settings.applicationName && one.state !== 'backup',
  )
  const sender = senderOf(inventory, candidate.instance)
  const isOfOther = sender !== null && sender !== primary.name
  if (row === undefined || isOfOther) {
    const upstream = configuredUpstream(candidate)
    const isStreaming = candidate.instance?.receiver?.status === 'streaming'
    const isElsewhere = isStreaming && sender !== primary.name
    const used = configuredApplicationName(candidate)
    if (row === undefined && sender === primary.name && used !== settings.applicationName) {
      return unknownByPrimary(succession, used)
    }
    const told = upstream === null ? 'nobody' : `${upstream.host}:${upstream.port}`
    return new ReplctlError(
      isElsewhere ? 'wrong-upstream' : 'not-streaming',
      `cannot switch over to ${name}: it does not receive from ${primary.name}`,
      {
        detail:
          row === undefined
            ? `${primary.name} has no replication connection of ${name}; ${name} is told to receive from ${told}.`
            : `${name} receives from ${sender}, by its own word; the connection of it that ${primary.name} still shows is a former one.`,
        hint: isElsewhere
          ? `Switch over to a standby that receives from ${primary.name} itself, or point ${name} at it first.`
          : `The reason stands in the log of ${name}; "replctl doctor ${name}" tries the login for real.`,
        node: name,
      },
    )
  }
  const receiver = candidate.instance?.receiver?.status ?? 'not running'
  if (row.state === 'streaming' && receiver === 'streaming') return null
  return new ReplctlError('not-streaming', `cannot switch over to ${name}: it does not stream yet`, {
    detail: `${primary.name} says "${row.state}" of its connection, its walreceiver says "${receiver}".`,
    hint: 'Wait until it streams ("replctl status"), then run the command again.',
    node: name,
  })
}

function unknownByPrimary(
  { primary, candidate: { name }, settings: { applicationName } }: Succession,
  used: string | undefined,
): ReplctlError {
  return new ReplctlError(
    'not-streaming',
    `cannot switch over to ${name}: ${primary.name} does not know it`,
    {
      detail: `It receives from ${primary.name} with ${used === undefined ? 'no application_name' : `application_name=${used}`} in its primary_conninfo; it ought to be ${applicationName}.`,
      hint: `Have it set: replctl add-standby ${name}`,
      node: name,
    },
  )
}

/** Who will receive from the new primary, and over which slot. */
export interface Follower {
  readonly applicationName: string
  readonly slotName: string
}

/** Whether the candidate has walsenders and slots left for those who will follow it. */
export function judgeRoom(
  candidate: NodeFacts,
  followers: readonly Follower[],
  hasSlots: boolean,
): ReplctlError | null {
  const { instance } = candidate
  if (instance === null) return null
  const limit = (name: string) => Number(instance.settings[name]?.value ?? 0)
  const newSenders = followers.filter(
    ({ applicationName }) => !instance.replication.some((one) => one.applicationName === applicationName),
  ).length
  const newSlots = hasSlots
    ? followers.filter(({ slotName }) => !instance.slots.some((one) => one.name === slotName)).length
    : 0
  const demands = [
    { setting: 'max_wal_senders', used: instance.replication.length, needed: newSenders },
    { setting: 'max_replication_slots', used: instance.slots.length, needed: newSlots },
  ]
  const short = demands.find(({ setting, used, needed }) => needed > 0 && used + needed > limit(setting))
  if (short === undefined) return null
  const { setting, used, needed } = short
  return new ReplctlError('settings-too-low', `${setting} on ${candidate.name} leaves no way back`, {
    detail: `${setting} is ${limit(setting)}; ${used} are in use, ${needed} more are needed for the nodes that will follow ${candidate.name}.`,
    hint: `Free one, or raise ${setting} on ${candidate.name} (it needs a restart).`,
    node: candidate.name,
  })
}
