import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { probeLife, probeSeconds } from '../node/probe-life.ts'
import { binDirectoryOf, look, sqlOf } from './look.ts'

/** What a fence command answered: null where the inventory has none. */
export type FenceCommand = (
  node: NodeSettings,
) => Promise<{ readonly hasFenced: boolean; readonly said: string }>

export interface UnreachableWish {
  readonly oldPrimary: NodeSettings
  /** Running standbys, the candidate first: they are asked for signs of life. */
  readonly witnesses: readonly NodeName[]
  readonly fence: FenceCommand | null
  readonly allowSplitBrain: boolean
  /** Its host answers, no process is left, and nothing can be written there that would keep it from coming up read-write. */
  readonly isUnwritable?: boolean
  /** Called when the fence command said that it fenced the node. */
  readonly onFenced?: (node: NodeName) => void
}

/**
 * A former primary whose host cannot be reached: fenced by the operator's command, or passed over at the operator's
 * own risk; in both cases only while no standby sees a sign of life of it.
 */
export function fenceUnreachable(wish: UnreachableWish): Step {
  const { oldPrimary, witnesses, fence, allowSplitBrain, isUnwritable = false } = wish
  const state = isUnwritable ? 'cannot be fenced there' : 'cannot be reached'
  const [candidate] = witnesses
  if (candidate === undefined) throw new RangeError('a promotion has at least its candidate as a witness')
  let isFenced = false
  return {
    title:
      fence === null
        ? `accept that ${oldPrimary.name} ${state}, and look for signs of life`
        : `fence ${oldPrimary.name} with the fence command, and look for signs of life`,
    node: candidate,
    leavesClusterAlone: true,
    check: async (ctx) => {
      if (isFenced) return satisfied(`${oldPrimary.name} is fenced`)
      if (fence === null && !allowSplitBrain) return refused(unproven(oldPrimary, isUnwritable))
      if (fence === null) {
        const sign = await signOfLife(ctx, oldPrimary, witnesses)
        return sign === null ? satisfied('no standby sees it alive') : refused(alive(oldPrimary, sign))
      }
      return pending(`${oldPrimary.name} ${state}`)
    },
    apply: async (ctx) => {
      const answer = await fence?.(oldPrimary)
      if (answer?.hasFenced !== true && !allowSplitBrain) throw notFenced(oldPrimary, answer?.said ?? '')
      if (answer?.hasFenced !== true) ctx.warn(notFenced(oldPrimary, answer?.said ?? ''))
      const sign = await signOfLife(ctx, oldPrimary, witnesses)
      if (sign !== null) throw alive(oldPrimary, sign)
      isFenced = true
      if (answer?.hasFenced === true) wish.onFenced?.(oldPrimary.name)
    },
  }
}

/**
 * Whether any standby sees the old primary alive: its walreceiver heard something within the last moment or has its reports
 * acknowledged, or the server's port answers from there, or is held. Null: nobody does. `isPortOfOther`: another cluster is known to answer at that port.
 */
export async function signOfLife(
  ctx: StepContext,
  oldPrimary: NodeSettings,
  witnesses: readonly NodeName[],
  options: { readonly isPortOfOther?: boolean } = {},
): Promise<string | null> {
  // The candidate at least must have looked: a connection that breaks just now is no proof that nobody is there.
  const signs = await Promise.all(
    witnesses.map((name, index) =>
      signSeenFrom(ctx, oldPrimary, name, options.isPortOfOther === true).catch((thrown: unknown) => {
        if (index === 0) throw thrown
        return null
      }),
    ),
  )
  return signs.find((sign) => sign !== null) ?? null
}

async function signSeenFrom(
  ctx: StepContext,
  oldPrimary: NodeSettings,
  witness: NodeName,
  isPortOfOther: boolean,
): Promise<string | null> {
  const facts = await look(ctx, witness)
  // A node that is about to be restored has no instance; it can still knock at the port.
  const sql = facts.instance === null ? null : await sqlOf(ctx, facts)
  const receiver = sql === null ? null : await sql.json<Receiver | null>(receiverQuery)
  const isItsSender = receiver?.host === oldPrimary.address || receiver?.host === oldPrimary.host
  const [seen, silence] = await Promise.all([
    probeLife(ctx.on(witness), {
      ...{ name: oldPrimary.name, address: oldPrimary.address, port: oldPrimary.postgres.port },
      ...{ binDirectory: binDirectoryOf(facts), limitSeconds: probeSeconds(oldPrimary) },
      receiver: isItsSender && receiver !== null ? receiver : null,
    }),
    wait(250).then(() => (isItsSender ? sql?.value(silenceQuery) : null)),
  ])
  const port = `its port ${oldPrimary.postgres.port}`
  if (!isPortOfOther && seen.port === 'answers') return `${port} answers ${witness}`
  if (!isPortOfOther && seen.port === 'held') {
    return `a process holds ${port}: the connection of ${witness} was taken, although nobody said anything`
  }
  if (silence != null && Number(silence) < 0.25) return `${witness} still receives WAL from it`
  if (seen.stream === 'acknowledged') {
    return `${witness} is still connected to it, and what it reports is acknowledged there`
  }
  return null
}

interface Receiver {
  readonly pid: number
  readonly host: string | null
  readonly reportSeconds: number
}

const receiverQuery = `SELECT (SELECT json_build_object('pid', pid, 'host', sender_host,
    'reportSeconds', (SELECT setting::int FROM pg_settings WHERE name = 'wal_receiver_status_interval'))
  FROM pg_stat_wal_receiver WHERE status = 'streaming')`

const silenceQuery = `SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::text FROM pg_stat_wal_receiver
  WHERE status = 'streaming'`

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** Neither the operator's command nor a flag says what cannot be known of it. */
export function unproven(oldPrimary: NodeSettings, isUnwritable = false): ReplctlError {
  const { name, host, postgres } = oldPrimary
  if (isUnwritable) {
    return new ReplctlError(
      'primary-unproven',
      `cannot fence the old primary ${name}: nothing can be written there`,
      {
        detail: `Its host answers, but ${postgres.dataDir} cannot be written (its file system may be read-only), and the inventory has no fence command. It would come up read-write once it can be written again.`,
        hint: `Make it writable, or switch the host off and configure fence.command, or, if you see to it that PostgreSQL is not started there: --allow-split-brain.`,
        node: name,
      },
    )
  }
  return new ReplctlError('primary-unproven', `cannot prove that the old primary ${name} is stopped`, {
    detail: `Its host ${host} cannot be reached, and the inventory has no fence command. It may still accept writes.`,
    hint: 'Switch it off and configure fence.command, or, if you know that it is off: --allow-split-brain.',
    node: name,
  })
}

function notFenced(oldPrimary: NodeSettings, said: string): ReplctlError {
  return new ReplctlError('primary-unproven', `the fence command did not fence ${oldPrimary.name}`, {
    detail: said === '' ? 'It ended with another status than 0.' : `It said: ${said}`,
    hint: 'Make sure that the host is off, then run promote again. If you know that it is off: --allow-split-brain.',
    node: oldPrimary.name,
  })
}

function alive(oldPrimary: NodeSettings, sign: string): ReplctlError {
  return new ReplctlError('primary-alive', `the old primary ${oldPrimary.name} is alive: ${sign}`, {
    detail: 'Only its SSH cannot be reached from here. Promoting now would make two writers.',
    hint: `Restore SSH to ${oldPrimary.host} so that replctl can stop it, or switch the host off.`,
    node: oldPrimary.name,
  })
}
