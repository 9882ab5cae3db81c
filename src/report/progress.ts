import type { Progress } from '../engine/step.ts'
import { formatBytes, formatDuration } from './bytes.ts'
import { oneLine } from './plain-text.ts'

/** How far a step is: `1.2 GiB of 3.0 GiB (40 %), 310 MiB/s, 6 s left`, or its message where it counts no bytes. */
export function progressText(progress: Progress): string {
  const { doneBytes: done, totalBytes: total, bytesPerSecond: speed = 0 } = progress
  const message = oneLine(progress.message)
  if (done === undefined || done <= 0) return message
  const pace = speed > 0 ? [`${formatBytes(speed)}/s`] : []
  // The total is an estimate: where it is passed, the message says more than 100 % does.
  if (total === undefined || done >= total) {
    return [message, formatBytes(done), ...(total === undefined ? pace : [])].join(', ')
  }
  const percent = Math.floor((done / total) * 100)
  const left = speed > 0 ? [`${formatDuration(Math.ceil((total - done) / speed) * 1000)} left`] : []
  return [`${formatBytes(done)} of ${formatBytes(total)} (${percent} %)`, ...pace, ...left].join(', ')
}

/** The same for messages that differ in their numbers only, such as an LSN that moves on. */
export function progressKind({ message }: Progress): string {
  return message.replace(/[0-9A-Fa-f]+\/[0-9A-Fa-f]+|\d+(?:\.\d+)?/g, '#')
}
