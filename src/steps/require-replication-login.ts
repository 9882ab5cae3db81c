import { senderOf } from '../cluster/find-upstream.ts'
import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { passfileOf } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { buildConninfo } from '../postgres/conninfo.ts'
import { binDirectoryOf, look, majorOf } from './look.ts'
import { suitableBinaries } from './require-binaries.ts'

/**
 * A replication login from the standby's host to its upstream is tried for real, and shows that the instance over
 * there is the one we mean: the same system identifier.
 */
export function requireReplicationLogin(
  standby: NodeName,
  upstream: NodeSettings,
  inventory: Inventory,
): Step {
  return {
    title: `try a replication login to ${upstream.name}`,
    node: standby,
    check: async (ctx) => {
      const [facts, there] = await Promise.all([look(ctx), look(ctx, upstream.name)])
      if (ctx.isDryRun && !facts.hasPassfile) return unknownUntil('the passfile is written')
      if (there.instance === null) return unknownUntil(`PostgreSQL runs on ${upstream.name}`)
      const { applicationName } = ctx.node.settings
      const isHere = there.instance.replication.some(
        (one) => one.applicationName === applicationName && one.state === 'streaming',
      )
      const isStreaming = facts.instance?.receiver?.status === 'streaming'
      const sender = senderOf(inventory, facts.instance) ?? upstream.name
      // It needs no second walsender, which may not be there, to show that it can log in.
      if (isHere && isStreaming && sender === upstream.name) return satisfied('it streams from there')
      const answer = await tryAgain(() => tryReplicationLogin(ctx, standby, upstream, inventory))
      if (typeof answer !== 'string') return refused(answer)
      return answer === there.instance.systemIdentifier
        ? satisfied(`the upstream answers with system identifier ${answer}`)
        : refused(otherInstance(standby, upstream, answer, there.instance.systemIdentifier))
    },
  }
}

/** The postmaster may read a changed pg_hba.conf a moment after our session saw the reload. */
async function tryAgain<T>(attempt: () => Promise<T | ReplctlError>): Promise<T | ReplctlError> {
  const first = await attempt()
  if (!(first instanceof ReplctlError) || !/no pg_hba.conf entry/.test(first.detail ?? '')) return first
  await new Promise((resolve) => setTimeout(resolve, 300))
  return await attempt()
}

/** The system identifier that the upstream tells a replication connection; an error where the login fails. */
export async function tryReplicationLogin(
  ctx: Pick<StepContext, 'on'>,
  from: NodeName,
  upstream: NodeSettings,
  inventory: Inventory,
): Promise<string | ReplctlError> {
  const node = ctx.on(from)
  const facts = await look(ctx as StepContext, from)
  const there = await look(ctx as StepContext, upstream.name)
  const binaries = suitableBinaries(facts, majorOf(there)) ?? facts.binaries
  const conninfo = buildConninfo({
    host: upstream.address,
    port: String(upstream.postgres.port),
    user: inventory.replication.user,
    passfile: passfileOf(facts.home, node.settings),
    replication: 'true',
    connect_timeout: '5',
    application_name: 'replctl',
  })
  const script = `"$1/psql" -X -A -t -w -F ' ' -d "$2" -c IDENTIFY_SYSTEM </dev/null`
  const directory = binaries?.directory ?? binDirectoryOf(facts)
  const result = await node.run(
    shellScript(`replication login to ${upstream.name}`, script, [directory, conninfo]),
    { timeoutMs: 20_000 },
  )
  if (result.status === 0) return result.stdout.trim().split(/\s+/)[0] ?? ''
  return new ReplctlError(
    'replication-login-failed',
    `${from} cannot log in for replication at ${upstream.name} (${upstream.address}:${upstream.postgres.port})`,
    {
      detail: result.stderr.trim().replaceAll(/\s*\n\s*/g, ' '),
      hint: `Check the route, a firewall, listen_addresses and pg_hba.conf of ${upstream.name}; if nodes reach it by another address, set "address" in the inventory.`,
      node: from,
    },
  )
}

function otherInstance(from: NodeName, upstream: NodeSettings, seen: string, wanted: string): ReplctlError {
  return new ReplctlError(
    'foreign-cluster',
    `at ${upstream.address}:${upstream.postgres.port} answers another instance`,
    {
      detail: `Seen from ${from}, its system identifier is ${seen}; that of ${upstream.name} is ${wanted}.`,
      hint: `Correct the address or the port of ${upstream.name} in the inventory.`,
      node: from,
    },
  )
}
