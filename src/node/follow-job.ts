import { ReplctlError } from '../errors.ts'
import { type JobState, lookAtJob } from './jobs.ts'
import type { Node } from './node.ts'

/** What a long job tells while it runs. */
export interface JobProgress {
  readonly message: string
  readonly doneBytes?: number | undefined
  readonly totalBytes?: number | undefined
  readonly bytesPerSecond?: number | undefined
}

export interface FollowedJob {
  readonly node: Node
  readonly name: string
  /** What is interrupted, or stands still, e.g. `a base backup`. */
  readonly what: string
  /** It may stand still for this long. */
  readonly patienceMs: number
  readonly signal: AbortSignal
  /** Looks at how far it is. */
  progress(job: JobState): Promise<JobProgress> | JobProgress
  tell(progress: JobProgress): void
  /** The error of a job that ended otherwise than well. */
  failed(job: JobState): ReplctlError
}

/**
 * Waits for a job as long as it gets on.
 * @throws {ReplctlError} `interrupted`, `timeout` where nothing moves, or what `failed` makes of its end
 */
export async function followJob(followed: FollowedJob): Promise<JobState> {
  const { node, name, what, patienceMs, signal } = followed
  const startedAt = Date.now()
  let last = ''
  let movedAt = Date.now()
  for (let waitMs = 100; ; waitMs = Math.min(waitMs * 2, 500)) {
    const job = await lookAtJob(node, name, waitMs)
    if (!job.isRunning) {
      if (job.status === 0) return job
      throw followed.failed(job)
    }
    if (signal.aborted) throw new ReplctlError('interrupted', `interrupted during ${what}`)
    const progress = await followed.progress(job)
    const now = `${progress.doneBytes ?? ''} ${job.pulse} ${job.output}`
    if (now !== last) {
      last = now
      movedAt = Date.now()
    }
    if (Date.now() - movedAt > patienceMs) {
      throw new ReplctlError('timeout', `${what} stands still for ${Math.round(patienceMs / 1000)} s`, {
        detail: job.output.trim().split('\n').at(-1),
        hint: 'It goes on by itself. The same command finds it again, and waits longer with a longer --timeout.',
        node: node.name,
      })
    }
    const seconds = (Date.now() - startedAt) / 1000
    followed.tell({
      ...progress,
      bytesPerSecond:
        progress.doneBytes === undefined || seconds < 0.2 ? undefined : progress.doneBytes / seconds,
    })
  }
}
