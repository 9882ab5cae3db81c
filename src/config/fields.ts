import { isIP } from 'node:net'
import * as z from 'zod'
import { nearestWord } from '../cluster/nearest-word.ts'
import { type DurationUnit, parseDuration, parseSize } from '../postgres/units.ts'

/** What the JSON Schema says of texts that are checked here: as much as a pattern can, and never more. */
const patterns = {
  line: String.raw`^[^\n\r\u0000]*\S[^\n\r\u0000]*$`,
  user: String.raw`^[^\s:/'"-][^\s:/'"]*$`,
  host: `^([A-Za-z0-9_][A-Za-z0-9._-]*|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%.+)?)$`,
  absolutePath: String.raw`^/[^\n\r\u0000]*[^/.\n\r\u0000][^\n\r\u0000]*$`,
}
const zero = String.raw`0+(\.0+)?`
const amount = String.raw`\d+(\.\d+)?`
const timeUnit = '(us|ms|s|min|h|d)'
const sizeUnit = '(B|kB|MB|GB|TB)'
/** e.g. `1h30min`, one after the other. */
const sumPattern = (unit: string, plain: string) =>
  String.raw`^\s*(${plain}|${amount}\s*${unit}(\s*${amount}\s*${unit})*)\s*$`
/** A plain number says nothing without a unit, unless it is 0. */
const onlyZero = { minimum: 0, maximum: 0 }

/** What is wrong with a value, or undefined. */
type Fault = { readonly message: string; readonly hint?: string } | undefined

/** Text that passes a check of its own; the hint travels in the issue's `params`. */
function textThat(findFault: (text: string) => Fault) {
  return z.string().check((context) => {
    const fault = findFault(context.value)
    if (fault) addFault(context, context.value, fault)
  })
}

function addFault(
  context: { issues: z.core.$ZodRawIssue[] },
  input: unknown,
  fault: NonNullable<Fault>,
): void {
  context.issues.push({ code: 'custom', input, message: fault.message, params: { hint: fault.hint } })
}

/** `shop`: it becomes part of cluster_name, slot names and application_name. */
export const clusterNameField = () =>
  textThat((text) =>
    /^[a-z][a-z0-9_-]{0,30}$/.test(text)
      ? undefined
      : {
          message: `${JSON.stringify(text)} is not a cluster name`,
          hint: 'It starts with a small letter and has at most 31 small letters, digits, _ and -.',
        },
  ).meta({ pattern: '^[a-z][a-z0-9_-]{0,30}$' })

/** Name of a node, e.g. `pg1` or `PG.2.example.com`. */
export const nodeNameField = () =>
  z.string().regex(nodeNamePattern, { error: ({ input }) => `${JSON.stringify(input)} is not a node name` })

/** What a node may be called. */
export const nodeNamePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/

/** Text that is not empty and fits on one line. */
export const lineField = () =>
  textThat((text) => {
    if (text.trim() === '') return { message: 'must not be empty' }
    return hasLineBreak(text) ? { message: 'must be on one line' } : undefined
  }).meta({ pattern: patterns.line })

/** A user of the operating system. */
export const userField = () =>
  textThat((text) =>
    /^[^\s:/'"-][^\s:/'"]*$/.test(text)
      ? undefined
      : { message: `${JSON.stringify(text)} is not a user name` },
  ).meta({ pattern: patterns.user })

/** A PostgreSQL role that may be created. */
export const roleField = () =>
  textThat((text) => {
    if (text === '' || hasLineBreak(text)) return { message: `${JSON.stringify(text)} is not a role name` }
    if (Buffer.byteLength(text) > 63) return { message: 'a role name has at most 63 bytes' }
    if (!text.startsWith('pg_')) return undefined
    return {
      message: `role name "${text}" is reserved`,
      hint: 'PostgreSQL keeps names that start with pg_ for itself.',
    }
  })

/** Something to connect to: a host name, an alias of ssh_config, or an IP address. */
export const hostField = () => textThat(findHostFault).meta({ pattern: patterns.host })

/** What is wrong with a host's name, or undefined. */
export function findHostFault(text: string): Fault {
  const message = `${JSON.stringify(text)} is not a host name or IP address`
  if (isIP(text) || /^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(text)) return undefined
  if (text.includes('@')) return { message, hint: 'Give the user as ssh.user.' }
  const bare = /^\[(.*)\]$/.exec(text)?.[1]
  if (bare !== undefined && isIP(bare)) return { message, hint: `Write it without brackets: "${bare}"` }
  if (text.includes(':'))
    return { message, hint: 'Give a port as ssh.port (of SSH) or port (of PostgreSQL).' }
  return { message }
}

/** A TCP port. */
export const portField = () => z.int().min(1).max(65535)

/** A path on a node. */
export const absolutePathField = () =>
  textThat((text) => {
    const message = `${JSON.stringify(text)} is not an absolute path`
    if (hasLineBreak(text)) return { message: 'must be on one line' }
    if (!text.startsWith('/')) return { message, hint: 'A path on a node starts with /.' }
    return /^[/.]*$/.test(text)
      ? { message: `${JSON.stringify(text)} cannot be used: it is the root of the host` }
      : undefined
  })
    .meta({ pattern: patterns.absolutePath })
    .transform((path) => path.replace(/\/+$/, ''))

/** A path on the control host. */
export const localPathField = () =>
  textThat((text) => {
    if (text === '' || hasLineBreak(text)) return { message: `${JSON.stringify(text)} is not a path` }
    if (!/^~[^/]/.test(text)) return undefined
    return { message: `${JSON.stringify(text)} names another user's home`, hint: 'Give the path in full.' }
  })

/** PostgreSQL counts milliseconds in 32 bits, and so do Node's timers: 24 days and a half. */
const longestDurationMs = 2 ** 31 - 1

/** A duration, read as milliseconds. A plain number is refused unless `plainUnit` says what it counts. */
export const durationField = (plainUnit?: DurationUnit) =>
  textOrNumber('a duration', {
    pattern: sumPattern(timeUnit, plainUnit === undefined ? zero : amount),
    ...(plainUnit === undefined ? onlyZero : { minimum: 0 }),
  }).transform((value, context) => {
    try {
      const durationMs = parseDuration(String(value), plainUnit)
      if (durationMs > longestDurationMs) addFault(context, value, { message: 'must be at most 24 days' })
      return durationMs
    } catch (thrown) {
      const hint = typeof value === 'number' ? `Add a unit: ${value}s.` : undefined
      return giveUp(context, value, thrown, hint)
    }
  })

/** How old something may be, read as milliseconds: no timer has to count it, but nothing is younger than it is. */
export const ageField = () =>
  textOrNumber('a duration', {
    pattern: sumPattern(timeUnit, '(?!)'),
    // No number is right: more than 0 needs a unit.
    exclusiveMinimum: 0,
    maximum: 0,
  }).transform((value, context) => {
    try {
      const durationMs = parseDuration(String(value))
      if (durationMs === 0)
        addFault(context, value, { message: 'must be more than 0', hint: 'For example 25h.' })
      return durationMs
    } catch (thrown) {
      return giveUp(context, value, thrown, typeof value === 'number' ? `Add a unit: ${value}h.` : undefined)
    }
  })

/** A size, read as bytes. */
export const sizeField = () =>
  textOrNumber('a size', { pattern: sumPattern(sizeUnit, zero), ...onlyZero }).transform((value, context) => {
    try {
      return parseSize(String(value))
    } catch (thrown) {
      return giveUp(context, value, thrown, sizeHint(String(value)))
    }
  })

/** A size that stays as it was written, for it goes into PostgreSQL's configuration; -1 is "no limit" there. */
export const sizeTextField = () =>
  textOrNumber('a size', {
    pattern: String.raw`^(-1|\s*(${zero}|${amount}\s*${sizeUnit})\s*)$`,
    minimum: -1,
    maximum: 0,
    multipleOf: 1,
  }).transform((value, context) => {
    const text = String(value)
    if (text === '-1') return text
    try {
      const bytes = parseSize(text)
      // PostgreSQL itself knows no sums, and would not start with one.
      if (/[A-Za-z].*\d/.test(text)) {
        const hint = `write one number and one unit, like ${Math.max(1, Math.round(bytes / 2 ** 20))}MB`
        addFault(context, value, {
          message: `not a size that PostgreSQL reads: ${JSON.stringify(text)}; ${hint}`,
        })
      }
      return text
    } catch (thrown) {
      return giveUp(context, value, thrown, sizeHint(text))
    }
  })

/** `schema`: what the JSON Schema says of it; a pattern is about texts, a minimum about numbers. */
function textOrNumber(what: string, schema: Readonly<Record<string, unknown>>) {
  return z.union([z.string(), z.number()], { error: `expected ${what}` }).meta(schema)
}

function giveUp(
  context: { issues: z.core.$ZodRawIssue[] },
  input: unknown,
  thrown: unknown,
  hint: string | undefined,
): never {
  addFault(context, input, { message: (thrown as Error).message, ...(hint && { hint }) })
  return z.NEVER
}

/** PostgreSQL's units are case-sensitive, and nearly everybody writes KB once. */
function sizeHint(text: string): string | undefined {
  const [, amount, unit] = /^([\d.]+)\s*([A-Za-z]+)$/.exec(text) ?? []
  const known = ['B', 'kB', 'MB', 'GB', 'TB']
  if (unit === undefined) return /^[\d.]+$/.test(text) ? `Add a unit: ${text}MB.` : undefined
  const spelled = known.find(
    (word) => word.toLowerCase() === unit.toLowerCase().replace(/^([kmgt])i?b?$/, '$1b'),
  )
  return spelled === undefined || spelled === unit ? undefined : `Did you mean "${amount}${spelled}"?`
}

const hbaTypes = ['local', 'host', 'hostssl', 'hostnossl', 'hostgssenc', 'hostnogssenc']

/** A line of pg_hba.conf. Whether the server takes it is asked of the server, before it is used. */
export const hbaLineField = () =>
  textThat((text) => {
    if (hasLineBreak(text)) return { message: 'a pg_hba.conf entry must be on one line' }
    const words = text.match(/"[^"]*"|[^\s"]+/g) ?? []
    const [type = ''] = words
    if (!hbaTypes.includes(type)) {
      const nearest = nearestWord(type, hbaTypes)
      const hint = nearest
        ? `Did you mean "${nearest}"?`
        : 'A line looks like: host all all 10.0.0.0/8 scram-sha-256'
      return { message: `unknown pg_hba.conf connection type ${JSON.stringify(type)}`, hint }
    }
    const [needed, form] =
      type === 'local' ? [4, 'database user method'] : [5, 'database user address method']
    if (words.length >= needed) return undefined
    return { message: 'incomplete pg_hba.conf entry', hint: `It needs: ${type} ${form}` }
  })

/** A value of a PostgreSQL parameter, read as the text PostgreSQL understands. */
export const parameterValueField = () =>
  z
    .union([z.string(), z.number(), z.boolean()], { error: 'expected text, a number, or true or false' })
    .transform((value, context) => {
      if (typeof value === 'boolean') return value ? 'on' : 'off'
      const text = String(value)
      if (hasLineBreak(text)) addFault(context, value, { message: 'must be on one line' })
      return text
    })

/** Name of a PostgreSQL parameter, an extension's (`pg_stat_statements.max`) too. */
export const parameterNameField = () =>
  z.string().regex(/^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$/, {
    error: ({ input }) => `${JSON.stringify(input)} is not a PostgreSQL parameter`,
  })

function hasLineBreak(text: string): boolean {
  return /[\n\r\0]/.test(text)
}
