import type { EngineEvent, EventListener } from '../engine/events.ts'
import { LiveBlock } from './live-block.ts'
import type { Paint } from './paint.ts'
import { oneLine } from './plain-text.ts'
import { warningText } from './problems.ts'
import { progressKind } from './progress.ts'
import { type RunningStep, runningLine } from './running-step.ts'
import { stepLine } from './step-line.ts'

/** Without a terminal a step tells how far it is at most this often. */
const tellEveryMs = 5_000

export interface ReporterOptions {
  /** Writes to standard error. */
  readonly write: (text: string) => void
  readonly isTerminal: boolean
  readonly paint: Paint
  /** Only warnings and failures. */
  readonly isQuiet: boolean
  /** Columns of the terminal. */
  readonly width: number
  /** Milliseconds of a clock that only goes forward. */
  readonly now: () => number
}

export interface Reporter {
  readonly listener: EventListener
  /** Leaves only lines that stay. To be called in the end; harmless when called again. */
  finish(): void
}

/** Shows an operation while it runs: lines that stay and, on a terminal, a live block of the running steps. */
export function createReporter(options: ReporterOptions): Reporter {
  if (options.isQuiet) return quietReporter(options)
  return options.isTerminal ? liveReporter(options) : lineReporter(options)
}

function quietReporter({ write, paint }: ReporterOptions): Reporter {
  const listener = (event: EngineEvent): void => {
    const isFailure = event.type === 'step-finished' && event.state === 'failed'
    if (isFailure || event.type === 'warning') write(lastingText(event, paint))
  }
  return { listener, finish: () => undefined }
}

function liveReporter(options: ReporterOptions): Reporter {
  const { paint } = options
  const running = new Map<number, RunningStep>()
  const block = new LiveBlock(options, running)
  const listener = (event: EngineEvent): void => {
    const isFollowed = follow(running, event)
    if (event.type === 'step-started') block.draw()
    else if (event.type === 'step-progress') block.drawSoon()
    else if (isFollowed || !isOnlyPlanned(event)) block.settle(lastingText(event, paint))
  }
  return { listener, finish: () => block.settle(takeUnfinished(running, paint)) }
}

/** Plain lines for a log: no cursor is moved, nothing is written twice without need. */
function lineReporter({ write, paint, now }: ReporterOptions): Reporter {
  const running = new Map<number, RunningStep>()
  const told = new Map<number, { readonly at: number; readonly kind: string }>()
  const listener = (event: EngineEvent): void => {
    const isFollowed = follow(running, event)
    if (event.type === 'step-started') return
    if (event.type !== 'step-progress') {
      if (isFollowed || !isOnlyPlanned(event)) write(lastingText(event, paint))
      return
    }
    const [last, kind] = [told.get(event.n), progressKind(event)]
    if (last !== undefined && last.kind === kind && now() - last.at < tellEveryMs) return
    told.set(event.n, { at: now(), kind })
    write(`${runningLine({ ...event, progress: event }, paint)}\n`)
  }
  return {
    listener,
    finish: () => {
      const text = takeUnfinished(running, paint)
      if (text !== '') write(text)
    },
  }
}

/** Keeps the running steps up to date; true where the event ends one of them. */
function follow(running: Map<number, RunningStep>, event: EngineEvent): boolean {
  if (event.type === 'step-finished') return running.delete(event.n)
  if (event.type === 'step-started') running.set(event.n, { ...event, progress: null })
  // A last word that comes after the step has ended must not bring it back.
  if (event.type === 'step-progress' && running.has(event.n)) {
    running.set(event.n, { ...event, progress: event })
  }
  return false
}

/** A plan's own finding: the plan is the answer and is told as a whole. */
function isOnlyPlanned(event: EngineEvent): boolean {
  return event.type === 'step-finished' && (event.state === 'planned' || event.state === 'satisfied')
}

type LastingEvent = Exclude<EngineEvent, { readonly type: 'step-started' | 'step-progress' }>

function lastingText(event: LastingEvent, paint: Paint): string {
  if (event.type === 'step-finished') return stepLine(event, paint)
  if (event.type === 'warning') return warningText(event.error, paint)
  return `${event.type === 'note' ? 'note' : 'waiting'}: ${oneLine(event.message)}\n`
}

function takeUnfinished(running: Map<number, RunningStep>, paint: Paint): string {
  const lines = [...running.values()].map((step) => `${runningLine(step, paint)}  (not finished)\n`)
  running.clear()
  return lines.join('')
}
