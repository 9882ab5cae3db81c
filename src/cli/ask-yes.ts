import type { Call } from './command-spec.ts'

/** Whether somebody sits at a terminal who can answer; a program that reads JSON is nobody. */
export function canAsk(call: Call): boolean {
  return call.io.isTerminal && process.stdin.isTTY === true && !call.flags.isJson
}

/** Asks on the terminal; Escape, Ctrl-C and a plain Enter are a no. */
export async function askYes(call: Call, question: string): Promise<boolean> {
  const { confirm } = await import('@clack/prompts')
  // A pseudo-terminal that nobody gave a size says 0, and every character would get a line of its own.
  if (!process.stderr.columns) process.stderr.columns = call.io.width || 80
  const answer = await confirm({
    message: question,
    initialValue: false,
    output: process.stderr,
    signal: call.signal,
  })
  return answer === true
}
