import { createHash } from 'node:crypto'
import type { NodeSettings, ReplicationSettings } from '../cluster/inventory.ts'
import type { Secret } from '../command.ts'
import { refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { quoteLiteral } from '../postgres/sql.ts'
import { isVerifierOf, readPassword } from './ensure-replication-role.ts'
import { ask, look } from './look.ts'

/** A role of the replication user's name that is there already keeps its password: others may use it. */
export function requireForeignRoleMatches({ name }: NodeSettings, replication: ReplicationSettings): Step {
  return {
    title: `require that a role "${replication.user}" is ours, or there is none`,
    node: name,
    check: async (ctx) => {
      if ((await look(ctx)).instance === null) return satisfied('it is looked at once PostgreSQL runs')
      const error = await foreignRoleRefusal(ctx, replication)
      return error === null ? satisfied('no password of others would change') : refused(error)
    },
  }
}

/** Why the role must be left alone: it has a password that we do not know. */
export async function foreignRoleRefusal(
  ctx: StepContext,
  replication: ReplicationSettings,
): Promise<ReplctlError | null> {
  const { facts, sql } = await ask(ctx)
  const { user } = replication
  const role = await sql.json<{ verifier: string | null } | null>(
    `SELECT json_build_object('verifier', rolpassword) FROM pg_authid WHERE rolname = ${quoteLiteral(user)}`,
  )
  if (role === null || role.verifier === null) return null
  const password = replication.password ?? (await readPassword(ctx, ctx.node.name, facts, replication))
  if (password !== null && isPasswordOf(role.verifier, password, user)) return null
  return new ReplctlError('foreign-role', `role "${user}" on ${ctx.node.name} has a password of its own`, {
    detail:
      password === null
        ? 'Somebody else made it and may use it; replctl does not know its password.'
        : 'It is not the one that replctl was given, and others may use it.',
    hint: 'Give its password in replication.password_file, or choose another replication.user.',
    node: ctx.node.name,
  })
}

/** An MD5 hash is a proof as well; the role then gets a SCRAM verifier of the same password. */
function isPasswordOf(stored: string, password: Secret, user: string): boolean {
  const md5 = createHash('md5').update(`${password.reveal()}${user}`).digest('hex')
  return stored === `md5${md5}` || isVerifierOf(stored, password)
}
