import { quoteConfigValue } from './config-file.ts'

/**
 * Debian's pg_ctl.conf holds options that pg_ctlcluster hands to pg_ctl at each start, split at blanks. The last
 * assignment counts, so replctl's own stands in a marked block at the end and repeats the operator's options before it;
 * the operator's line stays as it is.
 * @see pg_ctlcluster(1); PgCommon.pm, read_conf_file
 */
const begin = '# BEGIN replctl: the start guard runs before the server'
const end = '# END replctl'

export type GuardedOptions =
  | { readonly text: string }
  /** Why the guard cannot be put there. */
  | { readonly refusal: string }

/**
 * The text with `-p <server>` added to the operator's own options; idempotent.
 * @param text null where there is no such file
 * @param common the text of /etc/postgresql-common/pg_ctl.conf, which counts where the cluster has no file of its own
 */
export function addGuardOption(text: string | null, server: string, common = ''): GuardedOptions {
  if (!/^[\w@%+=:,./~-]+$/.test(server)) {
    return { refusal: `${server} holds a character that pg_ctl.conf cannot pass on` }
  }
  const own = removeGuardOption(text ?? '')
  const options = readOptions(text === null ? common : own)
  if (options === null) return { refusal: 'its pg_ctl_options stand in an included file' }
  if (/(^|\s)-p/.test(options))
    return { refusal: `its pg_ctl_options name a server of their own: ${options}` }
  const all = quoteConfigValue([options, '-p', server].filter((word) => word !== '').join(' '))
  const before = own === '' || own.endsWith('\n') ? own : `${own}\n`
  return { text: `${before}${begin}\npg_ctl_options = ${all}\n${end}\n` }
}

/** Takes {@link addGuardOption} back; all that is not replctl's stays byte for byte. */
export function removeGuardOption(text: string): string {
  const from = text.indexOf(begin)
  const to = from < 0 ? -1 : text.indexOf(`${end}\n`, from)
  return to < 0 ? text : text.slice(0, from) + text.slice(to + end.length + 1)
}

/** The value of the last `pg_ctl_options`; null where an include may hold it. */
function readOptions(text: string): string | null {
  if (/^\s*include(_dir|_if_exists)?[\s=]/m.test(text)) return null
  const lines = [
    ...text.matchAll(/^\s*pg_ctl_options\s*(?:=|\s)\s*(?:'((?:[^'\\]|''|\\.)*)'|([\w.:/+-]+))/gim),
  ]
  const last = lines.at(-1)
  return (last?.[1] ?? last?.[2] ?? '').replace(/\\(.)/g, '$1').replaceAll("''", "'").trim()
}
