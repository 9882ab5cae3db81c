import { randomBytes } from 'node:crypto'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { Secret } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { readTextFile } from '../node/files.ts'
import { lookAtJob } from '../node/jobs.ts'
import { stateScript } from '../node/node.ts'
import type { SqlSession } from '../node/sql-session.ts'
import { buildConninfo } from '../postgres/conninfo.ts'
import { hbaAddress, hbaLine } from '../postgres/hba.ts'
import { parsePassfile, passfileLine } from '../postgres/passfile.ts'
import { scramVerifier } from '../postgres/scram.ts'
import { quoteIdentifier, quoteLiteral } from '../postgres/sql.ts'
import type { ClusterInput } from './cluster-input.ts'
import { writeHbaLines } from './ensure-hba-lines.ts'
import { removeStateFile } from './ensure-mark.ts'
import { isVerifierOf } from './ensure-replication-role.ts'
import { ask, look } from './look.ts'
import { rewindJob } from './rewind-data-directory.ts'

/** A cluster is rewound by one operation at a time, so one name serves. */
const rewindRole = 'replctl_rewind'
/** By this it is known as our own, and may be dropped. */
const roleComment = 'made by replctl for pg_rewind; dropped when that is done'
const passfile = 'rewind.pgpass'

/** What pg_rewind calls on its source. @see https://www.postgresql.org/docs/current/app-pgrewind.html#APP-PGREWIND-NOTES */
const rewindFunctions = [
  'pg_ls_dir(text, boolean, boolean)',
  'pg_stat_file(text, boolean)',
  'pg_read_binary_file(text)',
  'pg_read_binary_file(text, bigint, bigint, boolean)',
]

/** How pg_rewind on `node` logs in at the primary; the password stands in the passfile that it names. */
export function rewindConninfo(home: string, node: NodeSettings, primary: NodeSettings): string {
  return buildConninfo({
    host: primary.address,
    port: String(primary.postgres.port),
    user: rewindRole,
    dbname: primary.postgres.database,
    passfile: `${stateDirectoryOf(home, node)}/${passfile}`,
    application_name: rewindRole,
    connect_timeout: '10',
    keepalives_idle: '10',
    // A standby's blocks would do, but what the node is to follow is the primary.
    target_session_attrs: 'read-write',
  })
}

/**
 * A role that may read the primary's files by the four functions pg_rewind calls, and do nothing else; it can log in from
 * the node alone, with a password that is made for this one rewind. The replication role keeps REPLICATION and no more.
 */
export function ensureRewindLogin(primary: NodeSettings, node: NodeSettings, input: ClusterInput): Step {
  const lines = [
    hbaLine({
      type: 'host',
      database: primary.postgres.database,
      user: rewindRole,
      address: hbaAddress(node.address),
      method: 'scram-sha-256',
    }),
  ]
  return {
    title: `let pg_rewind on ${node.name} read its files: a role for that alone, for this time`,
    node: primary.name,
    check: async (ctx) => {
      const { sql } = await ask(ctx)
      const role = await readRole(sql)
      if (role !== null && !role.isOurs) return refused(foreignRole(primary.name))
      if (role === null) return pending('there is no such role')
      if (role.isExpiring) {
        const on = ctx.on(node.name)
        // The one that works with it needs no new login, and would lose what it may read.
        if ((await lookAtJob(on, rewindJob)).isRunning) return satisfied('pg_rewind is at work with it')
        return pending('its password is valid for some hours only')
      }
      const password = await readRewindPassword(ctx, node.name)
      if (password === null || !isVerifierOf(role.verifier, password))
        return pending('its password is not known')
      const { live, wanted } = await writeHbaLines(ctx, primary.name, input, {
        extra: lines,
        isOnlyLook: true,
      })
      return live === wanted ? satisfied('it is there') : pending('pg_hba.conf lacks its line')
    },
    apply: async (ctx) => {
      const password = new Secret(randomBytes(24).toString('base64url'))
      const line = passfileLine({
        ...{ host: '*', port: '*', database: '*', user: rewindRole },
        password: password.reveal(),
      })
      const script = `cat > "$state/${passfile}" && chmod 0600 "$state/${passfile}"`
      const on = ctx.on(node.name)
      await on.output(
        stateScript(on, 'write the passfile of the rewind', script, [], new Secret(`${line}\n`)),
      )
      const { sql } = await ask(ctx)
      await dropRole(sql)
      const verifier = quoteLiteral(scramVerifier(password.reveal(), randomBytes(16)))
      const role = quoteIdentifier(rewindRole)
      // Should it ever be left over, it lets nobody in for long. A rewind under way is not cut off by that.
      const until = await sql.value(`SELECT quote_literal(now() + interval '1 day')`)
      const database = quoteIdentifier(primary.postgres.database)
      const statements = [
        `CREATE ROLE ${role} LOGIN PASSWORD ${verifier} VALID UNTIL ${until}`,
        `COMMENT ON ROLE ${role} IS ${quoteLiteral(roleComment)}`,
        ...rewindFunctions.map((one) => `GRANT EXECUTE ON FUNCTION pg_catalog.${one} TO ${role}`),
        // Up to 13 pg_rewind makes a temporary table there.
        `GRANT CONNECT, TEMPORARY ON DATABASE ${database} TO ${role}`,
      ]
      // All of it or nothing: one that was made without its comment would be a stranger's for good.
      await sql.execute(`DO ${quoteLiteral(`BEGIN ${statements.join('; ')}; END`)}`)
      await writeHbaLines(ctx, primary.name, input, { extra: lines })
    },
    undo: (ctx) => takeRewindLoginAway(ctx, primary.name, node.name, input),
  }
}

/** Nothing of the rewind's login stays, be it of this run (`isToBeMade`) or of one that was killed. */
export function dropRewindLogin(
  primary: NodeSettings,
  node: NodeSettings,
  input: ClusterInput,
  { isToBeMade = false } = {},
): Step {
  return {
    title: 'drop the role of the rewind',
    node: primary.name,
    check: async (ctx) => {
      const { sql } = await ask(ctx)
      const role = await readRole(sql)
      if (role?.isOurs === true) return pending('it is there')
      if (ctx.isDryRun && isToBeMade) return unknownUntil('pg_rewind has worked with it')
      const { live } = await writeHbaLines(ctx, primary.name, input, { isOnlyLook: true })
      if (live?.includes(rewindRole) === true) return pending('its line stands in pg_hba.conf')
      return (await readRewindPassword(ctx, node.name)) === null
        ? satisfied('there is none')
        : pending('its passfile is there')
    },
    apply: (ctx) => takeRewindLoginAway(ctx, primary.name, node.name, input),
  }
}

async function takeRewindLoginAway(
  ctx: StepContext,
  primary: NodeName,
  node: NodeName,
  input: ClusterInput,
): Promise<void> {
  await writeHbaLines(ctx, primary, input, {})
  const { sql } = await ask(ctx, primary)
  await dropRole(sql)
  await removeStateFile(ctx, node, passfile)
}

async function dropRole(sql: SqlSession): Promise<void> {
  const role = await readRole(sql)
  if (role?.isOurs !== true) return
  await sql.execute(`DROP OWNED BY ${quoteIdentifier(rewindRole)}`)
  await sql.execute(`DROP ROLE ${quoteIdentifier(rewindRole)}`)
}

interface RewindRole {
  readonly isOurs: boolean
  readonly verifier: string | null
  /** A rewind that begins now might find it expired before it has logged in for the last time. */
  readonly isExpiring: boolean
}

async function readRole(sql: SqlSession): Promise<RewindRole | null> {
  return await sql.json<RewindRole | null>(
    `SELECT json_build_object('isOurs', coalesce(shobj_description(oid, 'pg_authid') = ${quoteLiteral(roleComment)}, false),
        'isExpiring', coalesce(rolvaliduntil < now() + interval '12 hours', false), 'verifier', rolpassword) FROM pg_authid WHERE rolname = ${quoteLiteral(rewindRole)}`,
  )
}

async function readRewindPassword(ctx: StepContext, node: NodeName): Promise<Secret | null> {
  const facts = await look(ctx, node)
  const on = ctx.on(node)
  const text = await readTextFile(on, `${stateDirectoryOf(facts.home, on.settings)}/${passfile}`)
  const entry = parsePassfile(text ?? '').find((one) => one.user === rewindRole)
  return entry === undefined ? null : new Secret(entry.password)
}

function foreignRole(primary: NodeName): ReplctlError {
  return new ReplctlError('foreign-role', `there is a role "${rewindRole}" on ${primary} that is not ours`, {
    hint: `Rename it (ALTER ROLE ${rewindRole} RENAME TO …): replctl needs that name for a moment.`,
    node: primary,
  })
}
