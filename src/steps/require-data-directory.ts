import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { wayBack } from '../cluster/way-back.ts'
import { type Finding, refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { look } from './look.ts'
import { findLostFound } from './lost-found.ts'

/** The data directory is empty, missing, or one that this cluster's `init primary` made or began. */
export function requireDataDirectoryForPrimary(node: NodeName): Step {
  return {
    title: 'require an empty data directory, or one that replctl began',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const { dataDir } = ctx.node.settings.postgres
      const { dataDirectoryState: state } = facts
      if (state === 'missing') return satisfied(`${dataDir} is missing`)
      if (state === 'empty') return await requireWhollyEmpty(ctx)
      if (isOwn(facts, ctx.node.cluster, dataDir)) return satisfied(`${dataDir} was begun by replctl`)
      return refused(
        foreignDataDirectory(facts, dataDir, 'To take a running or stopped instance over: --adopt.'),
      )
    },
  }
}

/** The data directory is empty, missing, a clone that replctl began, or this very standby, complete. */
export function requireClonableDataDirectory(standby: NodeName, of: NodeName): Step {
  return {
    title: `require an empty data directory, or a standby of ${of}'s cluster`,
    node: standby,
    check: async (ctx) => {
      const [facts, source] = await Promise.all([look(ctx), look(ctx, of)])
      const { dataDir } = ctx.node.settings.postgres
      const { dataDirectoryState: state } = facts
      if (state === 'missing') return satisfied(`${dataDir} is missing`)
      if (state === 'empty') return await requireWhollyEmpty(ctx)
      if (isOwn(facts, ctx.node.cluster, dataDir) && facts.mark?.phase === 'cloning') {
        return satisfied(`${dataDir} holds a clone that replctl began`)
      }
      const own = facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier
      const wanted = source.instance?.systemIdentifier ?? source.control?.systemIdentifier
      if (state === 'instance' && own !== undefined && own === wanted) {
        return facts.hasStandbySignal && facts.instance?.isInRecovery !== false
          ? satisfied(`${dataDir} is a standby of this cluster`)
          : refused(notAStandby(facts, dataDir))
      }
      const identifiers = `System identifier there: ${own ?? 'none'}; of the cluster: ${wanted ?? 'unknown'}.`
      return refused(foreignDataDirectory(facts, dataDir, undefined, identifiers))
    },
  }
}

/** Our own look leaves lost+found out; initdb and pg_basebackup do not. */
async function requireWhollyEmpty(ctx: StepContext): Promise<Finding> {
  const error = await findLostFound(ctx, 'both')
  return error === null ? satisfied(`${ctx.node.settings.postgres.dataDir} is empty`) : refused(error)
}

/** Whether replctl made this very directory for this node. The inode tells it from one that was put in its place. */
export function isOwn(facts: NodeFacts, cluster: string, dataDir: string): boolean {
  const { mark } = facts
  return (
    mark !== null &&
    mark.cluster === cluster &&
    mark.node === facts.name &&
    mark.dataDirectory === dataDir &&
    (mark.inode === '' || mark.inode === facts.dataDirectoryInode)
  )
}

export function foreignDataDirectory(
  facts: NodeFacts,
  dataDir: string,
  hint: string | undefined,
  detail?: string,
): ReplctlError {
  const identifier = facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier
  const what =
    facts.dataDirectoryState === 'instance'
      ? `It holds a PostgreSQL ${facts.dataMajor} instance (system identifier ${identifier ?? 'unknown'}) that is not ours.`
      : 'It holds files that are not a PostgreSQL instance.'
  return new ReplctlError('foreign-data-directory', `${dataDir} on ${facts.name} is not replctl's to use`, {
    detail: detail === undefined ? what : `${what} ${detail}`,
    hint: `replctl never touches it. Choose another data_dir, or move it away yourself.${hint === undefined ? '' : ` ${hint}`}`,
    node: facts.name,
  })
}

function notAStandby(facts: NodeFacts, dataDir: string): ReplctlError {
  return new ReplctlError('not-a-standby', `${dataDir} on ${facts.name} is no standby`, {
    detail: `It belongs to this cluster, and ${
      facts.instance === null ? 'is stopped without a standby signal: a former primary' : 'accepts writes'
    }.`,
    hint: wayBack(facts.name),
    node: facts.name,
  })
}
