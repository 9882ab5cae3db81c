import { join } from 'node:path'
import { compiledCodeFolder, loadBundle } from './compiled-code.ts'

/** What the bundle of src/cli/main.ts exports. */
interface Program {
  main(process: NodeJS.Process): Promise<number>
  runKind(words: readonly string[]): string
}

/** Exit codes of runs that got to their end: what they needed is compiled. */
const finished: readonly number[] = [0, 9]

/** Runs replctl for a process; gives the exit code. */
export async function start(process: NodeJS.Process): Promise<number> {
  const uid = process.geteuid?.() ?? -1
  const bundle = loadBundle({
    file: join(import.meta.dirname, 'main.cjs'),
    folder: uid < 0 ? null : compiledCodeFolder(process.env, uid),
    uid,
  })
  const program = bundle.exports as Program
  const exitCode = await program.main(process)
  if (finished.includes(exitCode)) bundle.keep(program.runKind(process.argv.slice(2)))
  return exitCode
}
