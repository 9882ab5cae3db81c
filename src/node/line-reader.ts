import { ReplctlError } from '../errors.ts'
import type { RunningCommand } from '../transport/transport.ts'

/** Lines of a running command's output, one at a time, each waited for with a bound. */
export class LineReader {
  #buffer = ''
  #complaints = ''
  #ended: Error | undefined
  #wake: (() => void) | undefined
  readonly #what: string

  /** `what` names the other side in errors, e.g. `the holder of the cluster lock`. */
  constructor(running: RunningCommand, what: string) {
    this.#what = what
    running.onStdout((chunk) => {
      this.#buffer += chunk
      this.#wake?.()
    })
    running.onStderr((chunk) => {
      this.#complaints = (this.#complaints + chunk).slice(-2000)
    })
    running.finished.then(
      ({ status }) => {
        this.#ended = new ReplctlError('remote-command-failed', `${what} has ended`, {
          detail: `It ended with status ${status}. ${this.#complaints.trim()}`,
        })
        this.#wake?.()
      },
      (error: Error) => {
        this.#ended = error
        this.#wake?.()
      },
    )
  }

  async next(timeoutMs: number): Promise<string> {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const end = this.#buffer.indexOf('\n')
      if (end >= 0) {
        const line = this.#buffer.slice(0, end)
        this.#buffer = this.#buffer.slice(end + 1)
        return line
      }
      if (this.#ended !== undefined) throw this.#ended
      const left = deadline - Date.now()
      if (left <= 0) throw new ReplctlError('timeout', `${this.#what} did not answer`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }
}
