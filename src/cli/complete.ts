import { readFile } from 'node:fs/promises'
import tab from '@bomb.sh/tab/commander'
import { type Option, type RootCommand, ShellCompDirective } from '@bomb.sh/tab'
import { findInventoryPath } from '../config/find-inventory.ts'
import type { Surroundings } from './command-spec.ts'
import { makeProgram } from './program.ts'

/** Options and arguments whose values are the names of nodes. */
const nodeOptions = ['from', 'upstream']
const nodeArguments = ['node']
const shells = ['bash', 'zsh', 'fish']

/**
 * Answers a shell that asks what could come next: commands, options, the nodes of the inventory. It reads that file and
 * nothing else, and loads none of what talks to hosts. `words`: what @bomb.sh/tab's scripts call us with, `-- promote ''`.
 */
export async function complete(words: readonly string[], io: Surroundings): Promise<number> {
  const typed = words[0] === '--' ? words.slice(1) : [...words]
  const before = typed.slice(0, -1)
  const program = makeProgram({ version: () => '', writeOut: io.writeOut, writeError: io.writeError, run: async () => {} })
  if (namesFile(before.at(-1))) {
    // No directive against it: the shell completes paths better than we could.
    io.writeOut(`:${ShellCompDirective.ShellCompDirectiveDefault}\n`)
    return 0
  }
  const root = tab(program)
  root.commands.delete('complete')
  const names = (await nodeNames(before, io)).filter((name) => !before.includes(name))
  suggest(root, names)
  root.parse([...typed])
  return 0

  function namesFile(option: string | undefined): boolean {
    const known = [program, ...program.commands].flatMap((command) => command.options)
    return known.some(({ short, long, flags }) => (option === short || option === long) && /<(file|dir)>/.test(flags))
  }
}

/** Gives the values to the options and arguments that take them. */
function suggest(root: RootCommand, names: readonly string[]): void {
  for (const command of root.commands.values()) {
    for (const option of command.options.values()) {
      if (nodeOptions.includes(option.value)) option.handler = offer(names)
    }
    for (const argument of command.arguments.values()) {
      if (nodeArguments.includes(argument.name)) argument.handler = offer(names)
      if (argument.name === 'shell') argument.handler = offer(shells)
    }
  }
}

function offer(values: readonly string[]): NonNullable<Option['handler']> {
  return (take) => {
    for (const value of values) take(value, '')
  }
}

/** Names of the nodes in the inventory, as far as it can be read: half-written files have some, too. */
async function nodeNames(words: readonly string[], { env, cwd, home }: Surroundings): Promise<readonly string[]> {
  try {
    const path = findInventoryPath({ flag: configIn(words), env, cwd, home })
    const [text, { parseDocument }] = await Promise.all([readFile(path, 'utf8'), import('yaml')])
    const { nodes } = parseDocument(text).toJS() as { nodes?: Record<string, unknown> }
    return Object.keys(nodes ?? {})
  } catch {
    return []
  }
}

function configIn(words: readonly string[]): string | undefined {
  const joined = words.find((word) => word.startsWith('--config='))
  if (joined !== undefined) return joined.slice('--config='.length)
  const at = words.findIndex((word) => word === '-c' || word === '--config')
  return at < 0 ? undefined : words[at + 1]
}
