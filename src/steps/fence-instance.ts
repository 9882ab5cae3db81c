import type { FenceMark, NodeFacts } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { ownedStandbyFile, standbyConfigText, triggerFileOf } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { writeTextFile } from '../node/files.ts'
import { serviceOf, startFailed, stopByPid } from '../node/service.ts'
import { runUnasked } from '../node/start-guard.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { asItWillBe } from './as-it-will-be.ts'
import type { ClusterInput } from './cluster-input.ts'
import { removeStateFile, writeStateFile } from './ensure-mark.ts'
import { type FenceFiles, fenceStopped } from './fence-stopped.ts'
import { binDirectoryOf, look, lookAnew, majorOf } from './look.ts'

/**
 * Ends every process that works in a data directory, frozen ones too. It looks again until none is left: one may be
 * forked behind its back, and a session whose postmaster is gone can still confirm a commit.
 */
export const killAllScript = `
real=$(cd -P -- "$1" && pwd -P)
tries=0 left=yes
while [ "$left" = yes ] && [ $tries -lt 50 ]; do
  [ $tries -eq 0 ] || sleep 0.05 2>/dev/null || sleep 1
  tries=$((tries + 1)) left=no
  for entry in /proc/[0-9]*; do
    [ "$(readlink "$entry/cwd" 2>/dev/null)" = "$real" ] || continue
    case $(cat "$entry/comm" 2>/dev/null) in postgres*|postmaster*) left=yes; kill -KILL "\${entry#/proc/}" 2>/dev/null ;; esac
  done
done
pid=$(sed -n 1p "$1/postmaster.pid" 2>/dev/null)
if [ ! -d /proc ] && [ -n "$pid" ]; then kill -KILL "$pid" 2>/dev/null; fi
[ "$left" = no ] || [ ! -d /proc ]
`

/**
 * Makes sure that a former primary cannot accept writes: it is stopped, and what is left in its data directory
 * (standby.signal, or recovery.conf) lets it come up only as a standby, whoever starts it: by hand, by its service, by
 * a reboot. Stopping comes first, then the signal, then the proof, so that a service which restarted it in between is
 * noticed. Before the point of no return it is taken back.
 */
export function fenceInstance(
  node: NodeName,
  newPrimary: NodeSettings,
  input: ClusterInput,
  found: FoundInstance,
): Step {
  const { wasRunning, wasStandby = false } = found
  const was: Before = { wasRunning, ...(wasStandby ? { wasStandby } : {}) }
  let seen: NodeFacts | null = null
  return {
    title: fenceTitle(newPrimary.name),
    node,
    // A cluster whose primary was stopped for nothing has none.
    ...(wasRunning ? { mustNotStandAlone: true } : {}),
    check: async (ctx) => {
      const facts = await look(ctx)
      seen = facts
      if (facts.postmaster?.isAlive === true && facts.instance?.isInRecovery !== true) {
        return pending(`its postmaster runs (pid ${facts.postmaster.pid})`)
      }
      // What would be left there cannot be written; the fence command comes next.
      if (found.isUnwritable === true)
        return satisfied('no process is left, and nothing can be written there')
      if (!facts.hasStandbySignal) return pending('it would come up read-write')
      if (facts.postmaster?.isAlive !== true && facts.fence?.newPrimary !== newPrimary.name) {
        return pending('it is not marked as fenced')
      }
      return satisfied(`stopped ("${facts.control?.state ?? 'no process'}"), and only a standby if started`)
    },
    apply: async (ctx) => {
      if (found.isUnwritable === true) {
        await stopInstance(ctx, node)
        const left = await lookAnew(ctx)
        if (left.postmaster?.isAlive === true) throw stillRuns(node, left)
        return
      }
      // Most often nothing runs any more: then one round trip leaves everything there and proves it.
      if (seen !== null && seen.postmaster?.isAlive !== true) {
        if (await fenceStopped(ctx, fenceFiles(ctx, seen, newPrimary, was, input))) return
      }
      // The mark comes first: whoever finds it after an interruption knows what is to be finished, or taken back.
      let facts = await look(ctx)
      await writeFenceMark(ctx, facts, newPrimary, was)
      for (let attempt = 1; ; attempt++) {
        await stopInstance(ctx, node, facts)
        if (await fenceStopped(ctx, fenceFiles(ctx, facts, newPrimary, was, input))) return
        // A session that outlived its postmaster goes the same way.
        await ctx.node.run(
          shellScript('kill the instance', killAllScript, [ctx.node.settings.postgres.dataDir]),
        )
        if (await fenceStopped(ctx, fenceFiles(ctx, facts, newPrimary, was, input))) return
        await writeSignal(ctx, facts, newPrimary, input)
        facts = await look(ctx)
        if (facts.postmaster?.isAlive !== true && facts.hasStandbySignal) return
        if (attempt === 3) throw stillRuns(node, facts)
      }
    },
    // Apply ends with this very proof; each further look would lengthen the time without a primary.
    verify: async () => undefined,
    undo: async (ctx) => {
      const facts = await look(ctx)
      const own = facts.fence?.newPrimary === newPrimary.name ? facts.fence : null
      // It was fenced for another one, and this fencing did not come to its mark: what it found there stands.
      if (facts.fence !== null && own === null && !wasRunning) return
      if (own?.before !== undefined) {
        await writeStateFile(ctx, node, 'fenced.json', `${JSON.stringify(own.before)}\n`)
        return
      }
      if (own === null ? wasStandby : own.wasStandby === true) {
        if (own !== null) await removeStateFile(ctx, node, 'fenced.json')
        return
      }
      if (found.mayAnotherPromote === true) throw staysFenced(node, newPrimary.name, 'may lead yet')
      await refuseBesideWriter(ctx, node, [newPrimary.name, ...(found.others ?? [])])
      const { dataDir } = ctx.node.settings.postgres
      const remove = 'rm -f -- "$1/standby.signal"; if [ -n "$2" ]; then rm -f -- "$1/recovery.conf"; fi'
      const isOld = capabilitiesOf(majorOf(facts)).recoveryConf
      await ctx.node.output(shellScript('remove the standby signal', remove, [dataDir, isOld ? 'x' : '']))
      const isToRun = own?.wasRunning ?? wasRunning
      if (isToRun && facts.postmaster?.isAlive !== true) {
        const service = serviceOf(ctx.node, facts, binDirectoryOf(facts))
        // One that was killed recovers first, which may take longer than a wait for a state.
        const timeoutMs = Math.max(ctx.timeoutMs, 600_000)
        const started = await runUnasked(ctx.node, facts, service.start, { timeoutMs })
        if (started.status !== 0) throw startFailed(node, service, started.stderr || started.stdout)
      }
      if (own !== null) await removeStateFile(ctx, node, 'fenced.json')
    },
  }
}

/** A journal that holds it says who was to lead. */
export const fenceTitle = (newPrimary: string): string =>
  `fence the old primary: stop it, and let it start only as a standby of ${newPrimary}`

/** How an old primary is found before it is fenced; see `foundAs`. */
export interface FoundInstance {
  readonly wasRunning: boolean
  readonly wasStandby?: boolean
  /** Nothing can be left in its data directory: it is only stopped. */
  readonly isUnwritable?: boolean
  /** Another node was told to promote, and may do so at any moment: what is fenced stays fenced. */
  readonly mayAnotherPromote?: boolean
  /** Who may have come to lead instead of the new primary. */
  readonly others?: readonly NodeName[]
}

/** What of that its mark keeps. */
type Before = Pick<FenceMark, 'wasRunning' | 'wasStandby'>

/** Somebody may have made it lead meanwhile, by hand or with another control host: then the old one stays fenced. */
async function refuseBesideWriter(
  ctx: StepContext,
  node: NodeName,
  names: readonly NodeName[],
): Promise<void> {
  const seen = await Promise.all(names.map((name) => lookAnew(ctx, name).catch(() => null)))
  const leader = seen.find((facts) => facts?.instance?.isInRecovery === false)?.name
  if (leader !== undefined) throw staysFenced(node, leader, 'leads')
}

function staysFenced(node: NodeName, newPrimary: NodeName, because: string): ReplctlError {
  return new ReplctlError('cannot-abort', `${node} stays fenced: ${newPrimary} ${because}`, {
    hint: `Finish the promotion: replctl promote ${newPrimary}`,
    node: newPrimary,
  })
}

/** Stops an instance in fast mode; one that does not go in time, or is frozen, is killed. */
export async function stopInstance(ctx: StepContext, node: NodeName, seen?: NodeFacts): Promise<void> {
  const facts = seen ?? (await look(ctx, node))
  if (facts.postmaster?.isAlive !== true) return
  const on = ctx.on(node)
  await on.closeSql()
  const graceMs = Math.min(ctx.timeoutMs, 20_000)
  if (!facts.postmaster.isFrozen) {
    const service = serviceOf(on, facts, binDirectoryOf(facts))
    const stopped = await on.run(service.stop, { timeoutMs: graceMs }).catch(() => null)
    if (stopped?.status === 0 && service.stopsByPid) return
    // A service that did not start it has nothing to stop, and says that all is well, or that it knows none.
    if (stopped !== null && !service.stopsByPid) {
      if ((await lookAnew(ctx, node)).postmaster?.isAlive !== true) return
      const stop = stopByPid(on, binDirectoryOf(facts))
      const ended = await on.run(stop, { timeoutMs: graceMs }).catch(() => null)
      if (ended?.status === 0) return
    }
  }
  const killed = await on.run(shellScript('kill the instance', killAllScript, [on.settings.postgres.dataDir]))
  if (killed.status !== 0) throw stillRuns(node, facts)
  const deadline = Date.now() + 10_000
  while ((await look(ctx, node)).postmaster?.isAlive === true) {
    if (Date.now() > deadline) throw stillRuns(node, facts)
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
}

async function writeSignal(
  ctx: StepContext,
  facts: NodeFacts,
  newPrimary: NodeSettings,
  input: ClusterInput,
): Promise<void> {
  const { signalPath, configPath, configText, triggerPath } = fenceFiles(ctx, facts, newPrimary, {}, input)
  // What an interrupted promotion by trigger file left behind would promote it as soon as it starts.
  await Promise.all([
    ctx.node.output(shellScript(`remove ${triggerPath}`, 'rm -f -- "$1"', [triggerPath])),
    signalPath === undefined ? undefined : writeTextFile(ctx.node, signalPath, '', { mode: '0600' }),
    writeTextFile(ctx.node, configPath, configText, { mode: '0600' }),
  ])
}

function fenceFiles(
  ctx: StepContext,
  facts: NodeFacts,
  newPrimary: NodeSettings,
  was: Before,
  { inventory, templates }: ClusterInput,
): FenceFiles {
  const { dataDir } = ctx.node.settings.postgres
  const major = majorOf(facts)
  const isOld = capabilitiesOf(major).recoveryConf
  return {
    mark: fenceMark(facts, newPrimary, was),
    signalPath: isOld ? undefined : `${dataDir}/standby.signal`,
    triggerPath: triggerFileOf(facts.home, ctx.node.settings),
    configPath: isOld ? `${dataDir}/recovery.conf` : `${facts.configDirectory}/${ownedStandbyFile}`,
    configText: standbyConfigText({
      ...{ inventory, node: ctx.node.settings, templates, major, home: facts.home, standbys: [] },
      upstream: newPrimary,
      // What it would be started with has not been looked at: copies of logical slots have to wait for its rejoin.
      walLevel: null,
    }),
  }
}

/**
 * A step after the fencing of its node: a plan checks it as that will have left the node, with the mark and the files of a standby
 * that waits for the new primary.
 */
export function onceFenced(step: Step, newPrimary: NodeSettings, input: ClusterInput): Step {
  return asItWillBe(step, async (ctx) => {
    const facts = await look(ctx, step.node)
    if (facts.dataDirectoryState !== 'instance' || facts.fence?.newPrimary === newPrimary.name) return null
    const { mark, configText } = fenceFiles(ctx, facts, newPrimary, { wasRunning: false }, input)
    const isOld = capabilitiesOf(majorOf(facts)).recoveryConf
    return {
      ...{ fence: mark, hasStandbySignal: true },
      ...(isOld ? { recoveryConf: configText } : { standbyConf: configText }),
    }
  })
}

async function writeFenceMark(
  ctx: StepContext,
  facts: NodeFacts,
  newPrimary: NodeSettings,
  was: Before,
): Promise<void> {
  const mark = fenceMark(facts, newPrimary, was)
  try {
    await writeStateFile(ctx, facts.name, 'fenced.json', `${JSON.stringify(mark)}\n`)
  } catch (thrown) {
    // A full disk is a reason to fail over, not one against it.
    if (asReplctlError(thrown).code !== 'disk-full') throw thrown
  }
}

/** What an earlier, interrupted fencing for the same primary found running is still known to have run. */
function fenceMark(facts: NodeFacts, newPrimary: NodeSettings, was: Before): FenceMark {
  const { fence } = facts
  const mark = {
    newPrimary: newPrimary.name,
    timeline: facts.control?.timeline ?? 0,
    at: new Date().toISOString(),
  }
  if (fence === null) return { ...mark, ...was }
  if (fence.newPrimary === newPrimary.name) return { ...was, ...fence, ...mark }
  // It runs as a primary: what fenced it once is over.
  if (facts.postmaster?.isAlive === true && !facts.hasStandbySignal) return { ...mark, ...was }
  const { before: _, ...before } = fence
  return { ...mark, ...was, before }
}

function stillRuns(node: NodeName, facts: NodeFacts): ReplctlError {
  return new ReplctlError('stop-failed', `could not stop PostgreSQL on ${node}`, {
    detail: `Its postmaster (pid ${facts.postmaster?.pid}) is still there; something may start it again.`,
    hint: `Stop whatever starts it, then run the command again. ${node} still accepts writes as far as can be told.`,
    node,
  })
}
