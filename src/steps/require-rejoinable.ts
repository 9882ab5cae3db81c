import type { NodeFacts } from '../cluster/facts.ts'
import { refuseLowOverrides } from '../cluster/insufficient-settings.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { identifierOf } from '../cluster/record.ts'
import { rejoinUnderWay } from '../cluster/rejoin-under-way.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { isIsolated, stopIsolated } from '../node/isolated-instance.ts'
import { serviceOf } from '../node/service.ts'
import type { TimelineId } from '../postgres/lsn.ts'
import { stopInstance } from './fence-instance.ts'
import { ask, binDirectoryOf, look } from './look.ts'
import { isolatedPlaceOf } from './salvage/make-salvage.ts'

export interface RejoinableWish {
  readonly node: NodeName
  readonly primary: NodeName
  /** Why this rung and no other: shown to the operator. */
  readonly reasons: readonly string[]
  /** It answers as a primary beside the one that took over, and is to be stopped. */
  readonly isSecondWriter: boolean
  /** It is started, or started again, with its own files. */
  readonly isRestarted: boolean
}

/** What the way back was chosen for is still so: who leads, and whose data stands on the node. It shows the reasons. */
export function requireRejoinable({
  node,
  primary,
  reasons,
  isSecondWriter,
  isRestarted,
}: RejoinableWish): Step {
  return {
    title: `see what it holds that ${primary} lacks, and choose the way back`,
    node,
    check: async (ctx) => {
      const [facts, { facts: there }] = await Promise.all([look(ctx), ask(ctx, primary)])
      const { dataDir: dataDirectory } = ctx.node.settings.postgres
      const refusal =
        refusalOf(facts, there, isSecondWriter) ??
        (isRestarted ? refuseLowOverrides({ ...facts, dataDirectory }, there) : null)
      return refusal === null ? satisfied(reasons.join(' ')) : refused(refusal)
    },
  }
}

function refusalOf(facts: NodeFacts, there: NodeFacts, isSecondWriter: boolean): ReplctlError | null {
  const own = identifierOf(facts)
  if (there.instance?.isInRecovery !== false) {
    return new ReplctlError('no-primary', `${there.name} is no primary any more`, {
      hint: 'Look with "replctl status", then run the command again.',
      node: there.name,
    })
  }
  if (own !== undefined && own !== there.instance.systemIdentifier) {
    return new ReplctlError('foreign-cluster', `what is on ${facts.name} belongs to another cluster`, {
      detail: `Its system identifier is ${own}, that of ${there.name} is ${there.instance.systemIdentifier}.`,
      node: facts.name,
    })
  }
  if (facts.instance?.isInRecovery === false && !isSecondWriter) {
    return new ReplctlError('two-writers', `${facts.name} accepts writes, too, since a moment`, {
      detail: 'It did not when this command looked first.',
      hint: 'Look with "replctl status", then run the command again.',
      node: facts.name,
    })
  }
  return null
}

/** A standby that holds what the primary lacks is stopped; where the run is taken back it is started again. */
export function stopStandbyForRejoin({ name: node }: NodeSettings): Step {
  return {
    title: 'stop PostgreSQL',
    node,
    check: async (ctx) => {
      const { postmaster } = await look(ctx)
      return postmaster?.isAlive === true
        ? pending(`it runs with pid ${postmaster.pid}`)
        : satisfied('it does not run')
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance?.isInRecovery === false) {
        throw new ReplctlError('primary-alive', `${node} accepts writes: it is not stopped as a standby`, {
          hint: 'Look with "replctl status", then run the command again.',
          node,
        })
      }
      // One that was started to be read, by a run that was killed.
      if (isIsolated(ctx.node, facts)) await stopIsolated(ctx.node, isolatedPlaceOf(facts, 1 as TimelineId))
      await stopInstance(ctx, node)
    },
    undo: async (ctx) => {
      const facts = await look(ctx)
      const isWhole =
        facts.dataDirectoryState === 'instance' && rejoinUnderWay(facts) === null && facts.hasStandbySignal
      if (facts.postmaster?.isAlive === true || !isWhole) return
      await ctx.node.output(serviceOf(ctx.node, facts, binDirectoryOf(facts)).start, {
        timeoutMs: ctx.timeoutMs,
      })
    },
  }
}

/** Every tablespace of the primary finds its folder on the node: replay and pg_rewind both write into it. */
export function requireTablespacePlaces(node: NodeName, primary: NodeName): Step {
  return {
    title: `require a folder for each tablespace of ${primary}`,
    node,
    check: async (ctx) => {
      const { facts: there } = await ask(ctx, primary)
      const locations = (there.instance?.tablespaces ?? []).map((one) => one.location)
      if (locations.length === 0) return satisfied('there are no tablespaces')
      const { dataDir } = ctx.node.settings.postgres
      const script = `
data=$1; shift
for dir; do
  if [ ! -d "$dir" ] || [ ! -w "$dir" ]; then printf '%s\\n' "$dir"; fi
done`
      const output = await ctx.node.output(
        shellScript('look for the tablespace folders', script, [dataDir, ...locations]),
      )
      const missing = output.trim()
      if (missing === '') return satisfied(`${locations.length} folder(s) are there`)
      return refused(
        new ReplctlError('tablespace-unmapped', `${node} has no place for the tablespaces of ${primary}`, {
          detail: `Missing, or not writable: ${missing.split('\n').join(', ')}.`,
          hint: `Make each folder on ${node}, owned by ${ctx.node.settings.postgres.osUser}, then run the command again.`,
          node,
        }),
      )
    },
  }
}
