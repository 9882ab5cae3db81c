import { reservedParameters } from '../postgres/owned-settings.ts'

interface GuardedParameter {
  /** Name, in small letters. */
  readonly name: RegExp
  /** Values that are refused; undefined: all. */
  readonly values?: RegExp
  /** Only where the inventory has an archive. */
  readonly withArchive?: true
  readonly hint: string
}

/** PostgreSQL takes any clear beginning of the words. */
const off = /^(off?|f(a(l(se?)?)?)?|no?|0)$/i

/** Beyond what is reserved on every instance: what the inventory has keys of its own for, or what replication needs. */
const guardedParameters: readonly GuardedParameter[] = [
  { name: /^hot_standby$/, values: off, hint: 'A standby must answer queries: so replctl observes it.' },
  { name: /^wal_level$/, values: /^minimal$/i, hint: 'A standby needs replica or logical.' },
  { name: /^max_slot_wal_keep_size$/, hint: 'Set replication.max_slot_wal_keep_size.' },
  { name: /^recovery_target/, hint: 'Use replctl restore.' },
  { name: /^restore_command$/, hint: 'Describe the archive under "archive".' },
  {
    name: /^archive_(command|mode|library)$/,
    withArchive: true,
    hint: 'Set archive.mode, or remove "archive" to archive in your own way.',
  },
]

/**
 * Why a parameter cannot be set by hand; undefined if it can. replctl owns it, and a second hand on it would break
 * replication or mislead replctl about the cluster. The value is not told: a primary_conninfo may hold a password.
 */
export function findParameterFault(
  name: string,
  value: unknown,
  { hasArchive }: { readonly hasArchive: boolean },
): { readonly message: string; readonly hint: string } | undefined {
  const lowerCased = name.toLowerCase()
  const reserved = reservedParameters.get(lowerCased)
  if (reserved !== undefined) return { message: `parameter "${name}" cannot be set here`, hint: reserved }
  const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value).trim()
  const guarded = guardedParameters.find(
    (parameter) =>
      parameter.name.test(lowerCased) &&
      (parameter.values?.test(text) ?? true) &&
      (hasArchive || !parameter.withArchive),
  )
  if (guarded === undefined) return undefined
  const message = guarded.values
    ? `parameter "${name}" cannot be ${text}`
    : `parameter "${name}" cannot be set here`
  return { message, hint: guarded.hint }
}
