import { type Lsn, parseLsn } from './lsn.ts'

/** Where a recovery is to end. */
export type RecoveryTarget =
  /** As far as the archive reaches. */
  | { readonly kind: 'latest' }
  /** As soon as the backup is consistent. */
  | { readonly kind: 'immediate' }
  /** `time` as PostgreSQL reads it, with its zone; `atMs` since 1970. */
  | { readonly kind: 'time'; readonly time: string; readonly atMs: number }
  | { readonly kind: 'lsn'; readonly lsn: Lsn }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'xid'; readonly xid: string }

export interface RecoveryTargetFlags {
  readonly toTime?: string | undefined
  readonly toLsn?: string | undefined
  readonly toName?: string | undefined
  readonly toXid?: string | undefined
  readonly toImmediate?: boolean | undefined
  readonly latest?: boolean | undefined
}

/**
 * Reads the target from the command line; none means the latest.
 * @throws {RangeError} if there are two, or one cannot be read
 */
export function parseRecoveryTarget(flags: RecoveryTargetFlags): RecoveryTarget {
  const given: RecoveryTarget[] = []
  if (flags.toTime !== undefined) given.push(parseTime(flags.toTime))
  if (flags.toLsn !== undefined) given.push({ kind: 'lsn', lsn: readLsn(flags.toLsn) })
  if (flags.toName !== undefined) given.push({ kind: 'name', name: readName(flags.toName) })
  if (flags.toXid !== undefined) given.push({ kind: 'xid', xid: readXid(flags.toXid) })
  if (flags.toImmediate === true) given.push({ kind: 'immediate' })
  if (flags.latest === true) given.push({ kind: 'latest' })
  if (given.length > 1) throw new RangeError('there can be only one target of the recovery')
  return given[0] ?? { kind: 'latest' }
}

/** The flags that give this target again. */
export function recoveryTargetFlags(target: RecoveryTarget): RecoveryTargetFlags {
  switch (target.kind) {
    case 'latest':
      return { latest: true }
    case 'immediate':
      return { toImmediate: true }
    case 'time':
      return { toTime: target.time }
    case 'lsn':
      return { toLsn: target.lsn }
    case 'name':
      return { toName: target.name }
    case 'xid':
      return { toXid: target.xid }
  }
}

const timeShape =
  /^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6}))?)? ?(?:(Z|UTC|GMT)|([+-])(\d\d):?(\d\d)?)$/i

/** A zone is a must: the same words mean another moment on a host with another setting. */
function parseTime(text: string): RecoveryTarget {
  const match = timeShape.exec(text.trim())
  if (match === null) {
    throw new RangeError(
      `"${text}" is not a moment with a time zone; write it like "2026-11-26 06:15:00+01:00" or "2026-11-26T05:15:00Z"`,
    )
  }
  const [, year, month, day, hour, minute, second = '00', fraction = '', , sign, zoneHours, zoneMinutes] =
    match
  const zone = sign === undefined ? '+00:00' : `${sign}${zoneHours}:${zoneMinutes ?? '00'}`
  const wall = `${year}-${month}-${day}T${hour}:${minute}:${second}`
  const atMs = Date.parse(`${wall}.${fraction.slice(0, 3).padEnd(3, '0')}${zone}`)
  // Date.parse() takes the 30th of February for the 2nd of March.
  const isReal = !Number.isNaN(atMs) && new Date(`${wall}Z`).toISOString().startsWith(wall)
  if (!isReal) throw new RangeError(`there is no moment "${text}"`)
  const time = `${wall.replace('T', ' ')}${fraction === '' ? '' : `.${fraction}`}${zone}`
  return { kind: 'time', time, atMs }
}

function readLsn(text: string): Lsn {
  try {
    return parseLsn(text)
  } catch {
    throw new RangeError(`"${text}" is not an LSN like 0/3000148`)
  }
}

function readName(text: string): string {
  const isLegal = text !== '' && !/[\0\r\n]/.test(text) && Buffer.byteLength(text) < 64
  if (!isLegal) throw new RangeError('the name of a restore point has 1 to 63 bytes in one line')
  return text
}

function readXid(text: string): string {
  // pg_current_xact_id() gives it with its epoch; WAL and the server's history file know the lower 32 bits of it.
  const xid = /^\d{1,20}$/.test(text) ? BigInt.asUintN(32, BigInt(text)) : 0n
  if (xid < 3n) throw new RangeError(`"${text}" is not a transaction number`)
  return String(xid)
}

/** The settings of postgresql.conf (recovery.conf in 11) that end a recovery there. It pauses, so that it can be looked at. */
export function recoveryTargetSettings(target: RecoveryTarget): readonly (readonly [string, string])[] {
  const value = targetSetting(target)
  return value === null
    ? []
    : [value, ['recovery_target_inclusive', 'on'], ['recovery_target_action', 'pause']]
}

function targetSetting(target: RecoveryTarget): readonly [string, string] | null {
  switch (target.kind) {
    case 'latest':
      return null
    case 'immediate':
      return ['recovery_target', 'immediate']
    case 'time':
      return ['recovery_target_time', target.time]
    case 'lsn':
      return ['recovery_target_lsn', target.lsn]
    case 'name':
      return ['recovery_target_name', target.name]
    case 'xid':
      return ['recovery_target_xid', target.xid]
  }
}

/** For people and for JSON: `time 2026-11-26 06:15:00+01:00`, `latest`. */
export function describeTarget(target: RecoveryTarget): string {
  switch (target.kind) {
    case 'time':
      return `time ${target.time}`
    case 'lsn':
      return `LSN ${target.lsn}`
    case 'name':
      return `restore point "${target.name}"`
    case 'xid':
      return `transaction ${target.xid}`
    default:
      return target.kind
  }
}

/** What PostgreSQL prints for the time 0, in whichever zone the server logs. */
const isEpoch = (time: string): boolean => /^(1999-12-31|2000-01-01) /.test(time)

/**
 * Whether the reason that PostgreSQL wrote into the new timeline's history file says that this target was reached.
 * @see src/backend/access/transam/xlogrecovery.c, getRecoveryStopReason
 */
export function isReasonOf(target: RecoveryTarget, reason: string): boolean {
  switch (target.kind) {
    case 'latest':
      return /^no recovery target specified/.test(reason)
    case 'immediate':
      return /^reached consistency/.test(reason)
    case 'time': {
      // A server before 13 that ran out of WAL names the kind of target all the same, with a time of nothing: 2000-01-01.
      const at = /^(?:before|after) (\d{4}-.*)$/.exec(reason)?.[1]
      return at !== undefined && !isEpoch(at)
    }
    case 'lsn': {
      const at = /^(?:before|after) LSN "?([0-9A-F]+\/[0-9A-F]+)/.exec(reason)?.[1]
      return at !== undefined && parseLsn(at) !== '0/0'
    }
    case 'name':
      return reason === `at restore point "${target.name}"`
    case 'xid':
      return new RegExp(`^(before|after) transaction ${target.xid}$`).test(reason)
  }
}
