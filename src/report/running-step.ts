import type { Progress } from '../engine/step.ts'
import type { Paint } from './paint.ts'
import { cutToWidth, oneLine, textWidth } from './plain-text.ts'
import { progressText } from './progress.ts'

/** A step that has begun and not finished. */
export interface RunningStep {
  readonly node: string
  readonly title: string
  readonly progress: Progress | null
}

/** Less than this of a title would not tell which step it is. */
const leastTitleWidth = 20

/** `… pg2  take a base backup from pg1  1.2 GiB of 3.0 GiB (40 %), 310 MiB/s, 6 s left` */
export function runningLine(step: RunningStep, paint: Paint): string {
  return `… ${[paint.name(step.node), oneLine(step.title), ...progressPart(step)].join('  ')}`
}

/** The same in at most `width` columns: the title is shortened before the progress is. */
export function runningLineWithin(step: RunningStep, width: number, paint: Paint): string {
  const end = progressPart(step)
    .map((text) => `  ${text}`)
    .join('')
  const room = width - textWidth(`… ${step.node}  `) - textWidth(end)
  const title = cutToWidth(oneLine(step.title), Math.max(leastTitleWidth, room))
  const line = cutToWidth(`… ${step.node}  ${title}${end}`, width)
  return line.replace(step.node, (name) => paint.name(name))
}

function progressPart({ progress }: RunningStep): string[] {
  const text = progress === null ? '' : progressText(progress)
  return text === '' ? [] : [text]
}
