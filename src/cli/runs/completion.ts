import { exitCodes, ReplctlError } from '../../errors.ts'
import type { Answer, Call } from '../command-spec.ts'
import { completionScript, shells } from '../complete.ts'

/** `replctl completion bash|zsh|fish`. */
export async function run(call: Call): Promise<Answer> {
  const shell = shells.find((name) => name === call.args[0])
  if (shell === undefined) {
    throw new ReplctlError('usage', `there is no completion for "${call.args[0]}"`, {
      hint: `Name one of ${shells.join(', ')}.`,
    })
  }
  const text = completionScript(shell)
  return { exitCode: exitCodes.ok, changed: false, cluster: null, result: null, problems: [], text }
}
