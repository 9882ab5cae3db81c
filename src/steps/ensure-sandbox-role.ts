import { randomBytes } from 'node:crypto'
import type { NodeName } from '../cluster/names.ts'
import type { Secret } from '../command.ts'
import { pending, type Step, satisfied, unknownUntil } from '../engine/step.ts'
import { scramVerifier } from '../postgres/scram.ts'
import { quoteIdentifier, quoteLiteral } from '../postgres/sql.ts'
import { isVerifierOf } from './ensure-replication-role.ts'
import { ask, look } from './look.ts'

/**
 * The role that a sandbox's URLs log in as: no superuser; it sees the statistics (pg_monitor), and has a schema of its
 * own name, first in its search_path, to make tables in: from 15 on `public` is closed to it.
 */
export function ensureSandboxRole(primary: NodeName, role: string, password: Secret): Step {
  return {
    title: `have the role "${role}" for trying things out`,
    node: primary,
    check: async (ctx) => {
      if ((await look(ctx)).instance === null) return unknownUntil('PostgreSQL is started')
      const { sql } = await ask(ctx)
      const found = await sql.json<{ verifier: string | null; schema: boolean } | null>(
        `SELECT json_build_object('verifier', rolpassword,
                'schema', EXISTS (SELECT FROM pg_namespace WHERE nspname = rolname))
           FROM pg_authid WHERE rolname = ${quoteLiteral(role)}`,
      )
      if (found === null || !found.schema) return pending('it, or its schema, is missing')
      return isVerifierOf(found.verifier, password)
        ? satisfied('it is there, with the password of the passfile')
        : pending('it has another password')
    },
    apply: async (ctx) => {
      const { sql } = await ask(ctx)
      const name = quoteIdentifier(role)
      const exists = await sql.value(`SELECT 1 FROM pg_authid WHERE rolname = ${quoteLiteral(role)}`)
      const verifier = quoteLiteral(scramVerifier(password.reveal(), randomBytes(16)))
      await sql.execute(`${exists === null ? 'CREATE' : 'ALTER'} ROLE ${name} LOGIN PASSWORD ${verifier}`)
      await sql.execute(`GRANT pg_monitor TO ${name}`)
      await sql.execute(`CREATE SCHEMA IF NOT EXISTS ${name} AUTHORIZATION ${name}`)
    },
  }
}
