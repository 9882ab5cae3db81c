import { ReplctlError } from '../errors.ts'
import { lastValues, parseConfigFile } from '../postgres/config-file.ts'
import { standbyParityParameters } from '../postgres/settings.ts'
import type { NodeFacts } from './facts.ts'

/** A setting of a standby that is lower than the primary's was when it wrote the WAL. */
export interface InsufficientSetting {
  readonly name: (typeof standbyParityParameters)[number]
  readonly own: number
  readonly needed: number
}

/**
 * The settings for which a running standby has paused its replay by itself (14 and newer): its pg_control has what the WAL
 * needs. Such a one can neither replay nor be promoted, and shuts down where its replay is resumed: only a restart with larger
 * values helps.
 * @see https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-ADMIN
 */
export function insufficientSettings({ control, instance }: NodeFacts): readonly InsufficientSetting[] {
  if (control === null || instance?.isInRecovery !== true) return []
  const needs = {
    max_connections: control.maxConnections,
    max_worker_processes: control.maxWorkerProcesses,
    max_wal_senders: control.maxWalSenders,
    max_prepared_transactions: control.maxPreparedTransactions,
    max_locks_per_transaction: control.maxLocksPerTransaction,
  }
  return standbyParityParameters.flatMap((name) => {
    const [own, needed] = [Number(instance.settings[name]?.value ?? Number.NaN), needs[name]]
    return needed !== null && own < needed ? [{ name, own, needed }] : []
  })
}

/**
 * Refuses to start a node as a standby with what ALTER SYSTEM left there for its next start: that wins over every file that is
 * rendered, and PostgreSQL ends, or pauses, where it is lower than the primary's. Null where there is nothing of it.
 */
export function refuseLowOverrides(
  { name, autoConf, dataDirectory }: NodeFacts & { readonly dataDirectory: string },
  primary: NodeFacts,
): ReplctlError | null {
  const written = lastValues(parseConfigFile(autoConf))
  const low = standbyParityParameters.flatMap((setting) => {
    const own = Number(written.get(setting) ?? Number.NaN)
    const needed = Number(primary.instance?.settings[setting]?.value ?? Number.NaN)
    return own < needed ? [{ setting, own, needed }] : []
  })
  if (low.length === 0) return null
  const told = low.map(
    ({ setting, own, needed }) => `${setting} is ${own} there, and ${needed} on ${primary.name}`,
  )
  return new ReplctlError('settings-too-low', `${name} would not start as a standby of ${primary.name}`, {
    detail: `Of ${dataDirectory}/postgresql.auto.conf, which wins over every other file: ${told.join('; ')}.`,
    hint: `Take ${low.map(({ setting }) => setting).join(', ')} out of that file, or raise it there, then run the command again.`,
    node: name,
  })
}

/** Why it neither replays nor can lead, with the values, e.g. `its max_connections is 100, and the WAL that it replays needs 200`. */
export function tellInsufficient(low: readonly InsufficientSetting[]): string {
  return low
    .map(({ name, own, needed }) => `its ${name} is ${own}, and the WAL that it replays needs ${needed}`)
    .join('; ')
}

/** What to do about it, with the values; for a hint. */
export function raiseInsufficient(node: string, low: readonly InsufficientSetting[]): string {
  const raises = low.map(({ name, own, needed }) => `${name} from ${own} to ${needed}`).join(', ')
  return `On ${node}, raise ${raises} at least and restart PostgreSQL. Do not resume replay before: it would shut down.`
}

/** That a standby's replay is paused, by whomever, with what has it go on. */
export function replayPaused(facts: NodeFacts): ReplctlError {
  const { name } = facts
  const paused = new ReplctlError('replay-paused', `replay is paused on ${name}`, { node: name })
  const low = insufficientSettings(facts)
  return low.length === 0
    ? paused.with({ hint: 'Resume it there: SELECT pg_wal_replay_resume();' })
    : paused.with({
        detail: `PostgreSQL paused it: ${tellInsufficient(low)}. It goes on receiving, and can neither replay nor be promoted.`,
        hint: raiseInsufficient(name, low),
      })
}

/** Refuses to have such a one lead; null where there is nothing of it. */
export function refuseInsufficient(facts: NodeFacts, what: string): ReplctlError | null {
  const low = insufficientSettings(facts)
  if (low.length === 0) return null
  return new ReplctlError('settings-too-low', `${what}: PostgreSQL has paused its replay`, {
    detail: `As to ${facts.name}: ${tellInsufficient(low)}. Until it is restarted with larger values it neither replays nor can be promoted.`,
    hint: raiseInsufficient(facts.name, low),
    node: facts.name,
  })
}
