import { RootCommand, ShellCompDirective } from '@bomb.sh/tab'
import tab from '@bomb.sh/tab/commander'
import type { Command } from 'commander'
import { findInventoryPath } from '../config/find-inventory.ts'
import { readBounded } from '../config/read-bounded.ts'
import type { Surroundings } from './command-spec.ts'
import { configIn } from './config-in.ts'
import { findCommand, makeProgram } from './program.ts'

/** Options and arguments whose values are the names of nodes. */
const nodeOptions = ['from', 'upstream']
const nodeArguments = ['node']
export const shells = ['bash', 'zsh', 'fish'] as const

/**
 * Answers a shell that asks what could come next: commands, options, the nodes of the inventory. It reads that file and
 * nothing else, and loads none of what talks to hosts. `words`: what @bomb.sh/tab's scripts call us with, `-- promote ''`.
 */
export async function complete(words: readonly string[], io: Surroundings): Promise<number> {
  const typed = words[0] === '--' ? words.slice(1) : words
  const before = typed.slice(0, -1).flatMap(splitOption)
  const program = makeProgram({
    version: () => '',
    env: io.env,
    writeOut: io.writeOut,
    writeError: io.writeError,
    run: async () => {},
  })
  const last = before.at(-1)
  if (last?.startsWith('-') && namesFile(last, program)) {
    // No directive against it: the shell completes paths better than we could.
    io.writeOut(`:${ShellCompDirective.ShellCompDirectiveDefault}\n`)
    return 0
  }
  if (before[0] === 'help') {
    io.writeOut(helpTopics(program, before.slice(1), typed.at(-1) ?? ''))
    return 0
  }
  const root = tab(program)
  root.commands.delete('complete')
  const names = (await nodeNames(before, io)).filter((name) => !before.includes(name))
  suggest(root, names)
  io.writeOut(captureLines(() => root.parse([...before, typed.at(-1) ?? ''])))
  return 0
}

/** What `help` can be asked about next, as the library prints what it offers. */
function helpTopics(program: Command, before: readonly string[], begun: string): string {
  const { command, rest } = findCommand(program, before)
  const topics = rest.length > 0 ? [] : command.commands.filter((one) => one.name().startsWith(begun))
  const lines = topics.map((one) => `${one.name()}\t${one.summary() || one.description()}\n`)
  return `${lines.join('')}:${ShellCompDirective.ShellCompDirectiveNoFileComp}\n`
}

function namesFile(word: string, command: Command): boolean {
  return (
    command.options.some(
      ({ short, long, flags }) => (word === short || word === long) && /<(file|dir)>/.test(flags),
    ) || command.commands.some((child) => namesFile(word, child))
  )
}

/** Gives the values to the options and arguments that take them. */
function suggest(root: RootCommand, names: readonly string[]): void {
  for (const command of root.commands.values()) {
    // commander's description is the whole help.
    command.description = command.description.split('\n', 1)[0] ?? ''
    for (const option of command.options.values()) {
      if (nodeOptions.includes(option.value)) option.handler = offer(names)
    }
    for (const argument of command.arguments.values()) {
      if (nodeArguments.includes(argument.name)) argument.handler = offer(names)
      if (argument.name === 'shell') argument.handler = offer(shells)
    }
  }
}

function offer(values: readonly string[]): (take: (value: string, description: string) => void) => void {
  return (take) => {
    for (const value of values) take(value, '')
  }
}

/** Names of the nodes in the inventory, as far as it can be read: half-written files have some, too. */
async function nodeNames(
  words: readonly string[],
  { env, cwd, home }: Surroundings,
): Promise<readonly string[]> {
  try {
    const path = findInventoryPath({ flag: configIn(words), env, cwd, home })
    const [text, { readNodeNames }] = await Promise.all([
      readBounded(path, path, AbortSignal.timeout(1_000)),
      import('../config/read-node-names.ts'),
    ])
    return readNodeNames(text.toString())
  } catch {
    return []
  }
}

/** `--config=FILE` is two words for the library. */
function splitOption(word: string): readonly string[] {
  const [, name, value] = /^(--[\w-]+)=(.*)$/s.exec(word) ?? []
  return name === undefined || value === undefined ? [word] : [name, value]
}

/** What a shell sources to complete replctl. */
export function completionScript(shell: (typeof shells)[number]): string {
  const text = captureLines(() => new RootCommand().setup('replctl', 'replctl', shell))
  return shell === 'bash' ? completeBash(text) : text
}

/** Bash without the package bash-completion, and 3.2 of macOS, lack what the script calls; it may be sourced twice. */
function completeBash(script: string): string {
  return `${bashFallbacks}${script
    .replaceAll(/^readonly (ShellComp)/gm, '$1')
    .replace(/^complete -F/m, 'complete -o default -F')}`
}

const bashFallbacks = `\
declare -F _get_comp_words_by_ref >/dev/null || _get_comp_words_by_ref() {
    cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} words=("\${COMP_WORDS[@]}") cword=$COMP_CWORD
}
type compopt >/dev/null 2>&1 || compopt() { :; }
`

/** The library prints by console.log, which a caller cannot redirect. */
function captureLines(work: () => void): string {
  const { log } = console
  const lines: string[] = []
  console.log = (line: string) => lines.push(line)
  try {
    work()
  } finally {
    console.log = log
  }
  return `${lines.join('\n')}\n`
}
