import type { NodeName } from '../cluster/names.ts'
import { pending, refused, type Step, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { serviceOf, startFailed } from '../node/service.ts'
import { runUnasked } from '../node/start-guard.ts'
import { awaitInstance } from './await-instance.ts'
import { binDirectoryOf, look, lookAsChecked } from './look.ts'

/**
 * Starts the instance and waits until it answers. `isToLead`: that it is the one to lead has just been proved, under the
 * lock; the start guard then makes do with fewer answers, for the others may be lost.
 */
export function startInstance(node: NodeName, { isToLead = false } = {}): Step {
  return {
    title: 'start PostgreSQL',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance !== null) return satisfied(`it runs with pid ${facts.postmaster?.pid}`)
      if (facts.dataDirectoryState !== 'instance') return unknownUntil('the data directory is made')
      if (facts.postmaster?.isFrozen === true) {
        return refused(
          new ReplctlError('not-answering', `PostgreSQL on ${node} is frozen`, {
            detail: `Its postmaster (pid ${facts.postmaster.pid}) was stopped by SIGSTOP or a frozen cgroup.`,
            hint: 'Thaw it (kill -CONT), or stop it, then run the command again.',
            node,
          }),
        )
      }
      return pending(facts.postmaster?.isAlive === true ? 'it is starting' : 'it is stopped')
    },
    apply: async (ctx) => {
      // A second server does not start in a data directory that has one.
      const facts = await lookAsChecked(ctx)
      if (facts.postmaster?.isAlive !== true) {
        const service = serviceOf(ctx.node, facts, binDirectoryOf(facts))
        const result = isToLead
          ? await runUnasked(ctx.node, facts, service.start, { timeoutMs: ctx.timeoutMs })
          : await ctx.node.run(service.start, { timeoutMs: ctx.timeoutMs })
        // Somebody else, or the service of the host, may have been a moment earlier: then it runs, and is waited for alike.
        if (result.status !== 0 && (await look(ctx)).postmaster?.isAlive !== true) {
          throw startFailed(node, service, result.stderr || result.stdout)
        }
      }
      await awaitInstance(ctx, node, (now) => {
        if (now.postmaster?.isAlive === true) return
        throw startFailed(node, serviceOf(ctx.node, facts, binDirectoryOf(facts)), 'It ended again.')
      })
    },
    // It was seen to answer.
    verify: async () => undefined,
    undo: async (ctx) => {
      const facts = await look(ctx)
      if (facts.postmaster?.isAlive !== true) return
      await ctx.node.closeSql()
      await ctx.node.output(serviceOf(ctx.node, facts, binDirectoryOf(facts)).stop, {
        timeoutMs: ctx.timeoutMs,
      })
    },
  }
}
