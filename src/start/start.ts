import { join } from 'node:path'
import { compiledCodeFolder, loadBundle } from './compiled-code.ts'

/** What the bundle of src/cli/main.ts exports. */
interface Program {
  main(process: NodeJS.Process): Promise<number>
  runKind(words: readonly string[]): string
}

/** Exit codes of runs that got to their end: what they needed is compiled. */
const finished: readonly number[] = [0, 9]

const heldSignals = ['SIGINT', 'SIGTERM'] as const

/** Runs replctl for a process; gives the exit code. */
export async function start(process: NodeJS.Process): Promise<number> {
  // A signal that comes while all of it is loaded reaches those who listen afterwards, instead of ending the process unanswered.
  const hold = () => undefined
  for (const name of heldSignals) process.on(name, hold)
  const uid = process.geteuid?.() ?? -1
  const bundle = loadBundle({
    file: join(import.meta.dirname, 'main.cjs'),
    folder: uid < 0 ? null : compiledCodeFolder(process.env, uid),
    uid,
  })
  const program = bundle.exports as Program
  const running = program.main(process)
  for (const name of heldSignals) process.off(name, hold)
  const exitCode = await running
  if (finished.includes(exitCode)) bundle.keep(program.runKind(process.argv.slice(2)))
  return exitCode
}
