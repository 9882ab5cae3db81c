import type { Paint } from './paint.ts'
import { type RunningStep, runningLineWithin } from './running-step.ts'

/** A block that is redrawn more often only flickers. */
const drawEveryMs = 80
/** The cursor cannot go up beyond the screen's first line. */
const mostLines = 10

export interface LiveBlockOptions {
  readonly write: (text: string) => void
  readonly paint: Paint
  /** Columns of the terminal. */
  readonly width: number
  readonly now: () => number
}

/** The last lines of a terminal, one for each running step, drawn anew in place. */
export class LiveBlock {
  readonly #options: LiveBlockOptions
  readonly #running: ReadonlyMap<number, RunningStep>
  #drawnLines = 0
  #drawnAt = Number.NEGATIVE_INFINITY

  constructor(options: LiveBlockOptions, running: ReadonlyMap<number, RunningStep>) {
    this.#options = options
    this.#running = running
  }

  /** Writes lines that stay, above the block. */
  settle(text: string): void {
    const lines = this.#lines()
    // One write: what is erased and what takes its place appear together.
    const output = `${this.#eraser()}${text}${lines.map((line) => `${line}\n`).join('')}`
    this.#drawnLines = lines.length
    this.#drawnAt = this.#options.now()
    if (output !== '') this.#options.write(output)
  }

  draw(): void {
    this.settle('')
  }

  /** Draws unless it has just been done; the next change will show what was left out. */
  drawSoon(): void {
    if (this.#options.now() - this.#drawnAt >= drawEveryMs) this.draw()
  }

  #lines(): string[] {
    const { width, paint } = this.#options
    const steps = [...this.#running.values()]
    // A line as wide as the terminal may wrap, and then the block has more lines than were counted.
    const room = width > 1 ? width - 1 : 79
    const lines = steps.slice(0, mostLines).map((step) => runningLineWithin(step, room, paint))
    return steps.length > mostLines ? [...lines, `… and ${steps.length - mostLines} more`] : lines
  }

  #eraser(): string {
    return this.#drawnLines === 0 ? '' : `\x1b[${this.#drawnLines}A\r\x1b[J`
  }
}
