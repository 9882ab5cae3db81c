import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { commandFailed } from '../node/node.ts'
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
  /** Called when the fence command said that it fenced the node. */
  readonly onFenced?: (node: NodeName) => void
}

/**
 * A former primary whose host cannot be reached: fenced by the operator's command, or passed over at the operator's
 * own risk; in both cases only while no standby sees a sign of life of it.
 */
export function fenceUnreachable(wish: UnreachableWish): Step {
  const { oldPrimary, witnesses, fence, allowSplitBrain } = wish
  const [candidate] = witnesses
  if (candidate === undefined) throw new RangeError('a promotion has at least its candidate as a witness')
  let isFenced = false
  return {
    title:
      fence === null
        ? `accept that ${oldPrimary.name} cannot be reached, and look for signs of life`
        : `fence ${oldPrimary.name} with the fence command, and look for signs of life`,
    node: candidate,
    leavesClusterAlone: true,
    check: async (ctx) => {
      if (isFenced) return satisfied(`${oldPrimary.name} is fenced`)
      if (fence === null && !allowSplitBrain) return refused(unproven(oldPrimary))
      if (fence === null) {
        const sign = await signOfLife(ctx, oldPrimary, witnesses)
        return sign === null ? satisfied('no standby sees it alive') : refused(alive(oldPrimary, sign))
      }
      return pending(`${oldPrimary.name} cannot be reached`)
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
 * Whether any standby sees the old primary alive: its walreceiver heard something within the last moment, or the
 * server's port answers from there. Null: nobody does. `isPortOfOther`: another cluster is known to answer at that port.
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
  const probe = shellScript(`ask ${oldPrimary.name} for a sign of life`, probeScript, [
    ...[binDirectoryOf(facts), oldPrimary.address, String(oldPrimary.postgres.port)],
    String(probeSeconds(oldPrimary)),
  ])
  const [answer, silence] = await Promise.all([
    ctx.on(witness).run(probe, { timeoutMs: 3_000 }),
    wait(250).then(() =>
      sql?.value(
        `SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::text FROM pg_stat_wal_receiver
          WHERE status = 'streaming'`,
      ),
    ),
  ])
  // pg_isready: 0 accepts connections, 1 rejects them (starting, stopping); both are signs of life. 2: no answer; 124: none in
  // time. Anything else is no look at all.
  if (!isPortOfOther && (answer.status === 0 || answer.status === 1)) {
    return `its port ${oldPrimary.postgres.port} answers ${witness}`
  }
  if (![0, 1, 2, 124].includes(answer.status ?? -1)) throw commandFailed(witness, probe, answer)
  const sender = facts.instance?.receiver
  const isItsSender = sender?.senderHost === oldPrimary.address || sender?.senderHost === oldPrimary.host
  if (isItsSender && silence != null && Number(silence) < 0.25) return `${witness} still receives WAL from it`
  return null
}

/** TCP and one message of the server's: what libpq would try first, TLS and GSS, takes several round trips more. */
const probeScript = `
export PGSSLMODE=disable PGGSSENCMODE=disable
limit=$4
set -- "$1/pg_isready" -q -h "$2" -p "$3" -t 1
if command -v timeout >/dev/null; then timeout "$limit" "$@"; else "$@"; fi
`

/**
 * How long the server's port may take to answer, while nobody can write: a part of what the operator gives its host to, so that
 * whoever has a slow network and says so is not passed over.
 */
export function probeSeconds({ ssh }: NodeSettings): number {
  return Math.min(1, Math.max(0.3, (0.3 * ssh.connectTimeoutMs) / 1_000))
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

function unproven(oldPrimary: NodeSettings): ReplctlError {
  return new ReplctlError(
    'primary-unproven',
    `cannot prove that the old primary ${oldPrimary.name} is stopped`,
    {
      detail: `Its host ${oldPrimary.host} cannot be reached, and the inventory has no fence command. It may still accept writes.`,
      hint: 'Switch it off and configure fence.command, or, if you know that it is off: --allow-split-brain.',
      node: oldPrimary.name,
    },
  )
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
