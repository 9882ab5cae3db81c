import { ReplctlError } from '../errors.ts'

/** One line of a passfile; `*` in any of the first four matches everything. */
export interface PassfileEntry {
  readonly host: string
  readonly port: number | string
  /**
   * `replication` for a walreceiver and pg_basebackup — unless their connection string names a database, as it may
   * from PostgreSQL 17 on. `*` is right for both.
   */
  readonly database: string
  readonly user: string
  readonly password: string
}

/**
 * A line of a passfile, without its newline: `10.0.0.11:5432:*:replicator:s3\:cret`.
 * It holds the password: write it to a 0600 file only (libpq ignores any other).
 * @throws {ReplctlError} `password-invalid` if the password holds a line break or NUL, which no passfile can
 * @see https://www.postgresql.org/docs/current/libpq-pgpass.html
 */
export function passfileLine(entry: PassfileEntry): string {
  const { host, port, database, user, password } = entry
  if (/[\n\r\0]/.test(password)) {
    throw new ReplctlError(
      'password-invalid',
      `cannot write the password of role "${user}" into a passfile`,
      {
        detail: 'It holds a line break or a NUL character.',
        hint: 'Choose another password. Of a password file only one trailing newline is cut.',
      },
    )
  }
  return [host, String(port), database, user, password].map(escapeField).join(':')
}

/** The entries of a passfile in order, the first match counts; comments and incomplete lines are left out. */
export function parsePassfile(text: string): readonly PassfileEntry[] {
  return text.split(/\r?\n/).flatMap((line) => {
    if (line.startsWith('#')) return []
    const fields = line
      .match(/(?:[^\\:]|\\.?)+|(?<=:|^)(?=:|$)/g)
      ?.map((field) => field.replace(/\\(.)/g, '$1'))
    const [host, port, database, user, password] = fields ?? []
    if (host === undefined || port === undefined || database === undefined) return []
    if (user === undefined || password === undefined) return []
    return [{ host, port, database, user, password }]
  })
}

const escapeField = (field: string) => field.replace(/[\\:]/g, '\\$&')
