import { randomBytes } from 'node:crypto'
import type { NodeFacts } from '../cluster/facts.ts'
import type { ReplicationSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { passfileOf } from '../cluster/node-configuration.ts'
import { Secret } from '../command.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { readTextFile } from '../node/files.ts'
import { stateScript } from '../node/node.ts'
import { parsePassfile, passfileLine } from '../postgres/passfile.ts'
import { scramVerifier } from '../postgres/scram.ts'
import { quoteIdentifier, quoteLiteral } from '../postgres/sql.ts'
import { removeStateFile } from './ensure-mark.ts'
import { ask, look } from './look.ts'

/**
 * Keeps the replication password on a node, in a passfile that only the PostgreSQL OS user reads. Its source: the
 * inventory's own (file or environment), else what `from` has, else a new random one (only where `from` is the node).
 * It is written before the role gets it, so that a run that dies in between finds it again.
 */
export function ensurePassfile(node: NodeName, replication: ReplicationSettings, from: NodeName): Step {
  return {
    title: 'keep the replication password in a passfile',
    node,
    check: async (ctx) => {
      const [facts, source] = await Promise.all([look(ctx), look(ctx, from)])
      const own = await readPassword(ctx, node, facts, replication)
      const wanted = replication.password ?? (await readPassword(ctx, from, source, replication))
      if (own === null) return pending('there is none')
      return wanted === null || wanted.reveal() === own.reveal()
        ? satisfied('it is there')
        : pending('it holds another password')
    },
    apply: async (ctx) => {
      const source = await look(ctx, from)
      const found = replication.password ?? (await readPassword(ctx, from, source, replication))
      const password = found ?? new Secret(randomBytes(24).toString('base64url'))
      const line = passfileLine({
        ...{ host: '*', port: '*', database: '*', user: replication.user },
        password: password.reveal(),
      })
      await ctx.node.output(
        stateScript(ctx.node, 'write the passfile', writeScript, [earlierFile], new Secret(`${line}\n`)),
      )
    },
    // A node that is complete goes on using it.
    undo: async (ctx) => {
      const { dataDirectoryState, mark, home } = await look(ctx)
      const isUnfinished = mark !== null && mark.phase !== 'done'
      if (dataDirectoryState === 'instance' && !isUnfinished) {
        await putEarlierBack(ctx, home, replication, from)
        return
      }
      await removeStateFile(ctx, node, 'pgpass')
    },
  }
}

/** The passfile as it was before a change of the password, until it is known that this one is in force. */
const earlierFile = 'pgpass.earlier'

const writeScript = `
umask 077
cat > "$state/pgpass.new" && chmod 0600 "$state/pgpass.new" || exit 74
rm -f "$state/$2"
if [ -f "$state/pgpass" ]; then cp -p "$state/pgpass" "$state/$2" || exit 74; fi
mv -f "$state/pgpass.new" "$state/pgpass"
`

/** Where the role still has the password from before, everybody who logs in with another one is refused. */
async function putEarlierBack(
  ctx: StepContext,
  home: string,
  { user }: ReplicationSettings,
  primary: NodeName,
): Promise<void> {
  const path = passfileOf(home, ctx.node.settings).replace(/pgpass$/, earlierFile)
  const entry = parsePassfile((await readTextFile(ctx.node, path)) ?? '').find((one) => one.user === user)
  if (entry === undefined) return
  const { sql } = await ask(ctx, primary)
  const verifier = await sql.value(`SELECT rolpassword FROM pg_authid WHERE rolname = ${quoteLiteral(user)}`)
  if (!isVerifierOf(verifier, new Secret(entry.password))) return
  await ctx.node.output(
    stateScript(ctx.node, 'put the passfile back', 'mv -f "$state/$2" "$state/pgpass"', [earlierFile]),
  )
}

/** The replication role may log in and replicate, and nothing else; its password is the passfile's. */
export function ensureReplicationRole(primary: NodeName, replication: ReplicationSettings): Step {
  const user = replication.user
  return {
    title: `have the role "${user}" with REPLICATION and no more`,
    node: primary,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance === null) return unknownUntil('PostgreSQL is started')
      const { sql } = await ask(ctx)
      const role = await sql.json<{ login: boolean; replication: boolean; verifier: string | null } | null>(
        `SELECT json_build_object('login', rolcanlogin, 'replication', rolreplication, 'verifier', rolpassword)
           FROM pg_authid WHERE rolname = ${quoteLiteral(user)}`,
      )
      if (role === null) return pending('there is no such role')
      if (!role.login || !role.replication) return pending('it may not log in and replicate')
      const password = await readPassword(ctx, primary, facts, replication)
      return password !== null && isVerifierOf(role.verifier, password)
        ? satisfied('it is there, with the password of the passfile')
        : pending('it has another password')
    },
    apply: async (ctx) => {
      const { facts, sql } = await ask(ctx)
      const password = await readPassword(ctx, primary, facts, replication)
      if (password === null) throw new RangeError('the passfile lacks the password')
      const verifier = quoteLiteral(scramVerifier(password.reveal(), randomBytes(16)))
      const exists = await sql.value(`SELECT 1 FROM pg_authid WHERE rolname = ${quoteLiteral(user)}`)
      const verb = exists === null ? 'CREATE' : 'ALTER'
      // A default of the operator's for applications; a standby would still refuse.
      await sql.execute('SET default_transaction_read_only = off')
      await sql.execute(`${verb} ROLE ${quoteIdentifier(user)} LOGIN REPLICATION PASSWORD ${verifier}`)
    },
  }
}

/** The password a node keeps; null where it keeps none for this role. */
export async function readPassword(
  ctx: StepContext,
  node: NodeName,
  facts: NodeFacts,
  replication: ReplicationSettings,
): Promise<Secret | null> {
  if (!facts.hasPassfile) return null
  const text = await readTextFile(ctx.on(node), passfileOf(facts.home, ctx.on(node).settings))
  const entry = parsePassfile(text ?? '').find((one) => one.user === replication.user)
  return entry === undefined ? null : new Secret(entry.password)
}

/** Whether a stored SCRAM verifier was made from this password: made again with its own salt and iterations. */
export function isVerifierOf(stored: string | null, password: Secret): boolean {
  const match = /^SCRAM-SHA-256\$(\d+):([^$]+)\$/.exec(stored ?? '')
  if (match === null) return false
  const salt = Buffer.from(match[2] ?? '', 'base64')
  return scramVerifier(password.reveal(), salt, Number(match[1])) === stored
}
