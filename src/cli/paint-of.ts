import { colorLevel, createPaint, type Paint } from '../report/paint.ts'
import type { Call } from './command-spec.ts'

/** Colours for standard error, or for what goes to standard output. */
export function paintOf(call: Call, stream: 'error' | 'out' = 'error'): Paint {
  const { env, isTerminal, isOutTerminal } = call.io
  return createPaint(
    colorLevel({
      isTerminal: stream === 'out' ? isOutTerminal : isTerminal,
      env,
      noColorFlag: call.flags.noColor,
    }),
  )
}
