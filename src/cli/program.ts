import { Argument, Command, CommanderError, Option } from 'commander'
import { nearestWord } from '../cluster/nearest-word.ts'
import { ReplctlError } from '../errors.ts'
import { parseDuration } from '../postgres/units.ts'
import type { Call, CommandSpec, GlobalFlags } from './command-spec.ts'
import { commands } from './commands/index.ts'
import { wrapHelp } from './wrap-help.ts'

export interface ProgramOptions {
  readonly version: () => string
  readonly env: Readonly<Record<string, string | undefined>>
  writeOut(text: string): void
  writeError(text: string): void
  run(spec: CommandSpec, call: Omit<Call, 'io' | 'signal' | 'found'>): Promise<void>
}

const epilogue = `
Exit codes: 0 done, 1 fault of replctl, 2 usage or inventory, 3 refused (nothing changed), 4 a host could not be reached (nothing changed), 5 failed and taken back, 6 stopped part-way, 7 time limit, 8 locked, 9 problems found.

Start here: replctl new, replctl doctor, replctl init primary, replctl add-standby, replctl verify.
Without any host: replctl sandbox up.`

/** The command line, made of the commands' own descriptions. */
export function makeProgram(options: ProgramOptions): Command {
  const program = new Command('replctl')
  program
    .exitOverride()
    .configureOutput({ writeOut: options.writeOut, writeErr: options.writeError })
    .description(
      'Orchestrates PostgreSQL primary-standby clusters over SSH; nothing is installed on the hosts.',
    )
    .option('-V, --version', 'print the version')
    .on('option:version', () => {
      throw new CommanderError(0, 'commander.version', options.version())
    })
    .configureHelp({ boxWrap: wrapHelp })
    .addHelpText('after', () => wrapHelp(epilogue, program.configureOutput().getOutHelpWidth?.() || 80))
    .showHelpAfterError('(see --help)')
  addGlobalOptions(program)
  for (const spec of commands) addCommand(program, spec, options)
  addHelp(program)
  return program
}

/** `help backup list` as well as `help backup`; commander's own looks at one word, and passes over one that it does not know. */
function addHelp(program: Command): void {
  program
    .helpCommand(false)
    .command('help')
    .argument('[command...]', 'whose help')
    .description('display help for command')
    .allowUnknownOption()
    .action((words: readonly string[]) => {
      const names = words.filter((word) => !word.startsWith('-'))
      const { command, rest } = findCommand(program, names)
      const [unknown] = rest
      if (unknown !== undefined) refuseUnknown(command, unknown)
      command.outputHelp()
    })
}

/** As far as words lead: the command, and the words behind it. */
export function findCommand(
  program: Command,
  words: readonly string[],
): { readonly command: Command; readonly rest: readonly string[] } {
  const [word, ...rest] = words
  const child = program.commands.find((one) => one.name() === word)
  return child === undefined ? { command: program, rest: words } : findCommand(child, rest)
}

function refuseUnknown(command: Command, word: string): never {
  const near = nearestWord(
    word,
    command.commands.map((one) => one.name()),
  )
  const hint = near === undefined ? '' : `\n(Did you mean ${near}?)`
  command.error(`error: unknown command '${word}'${hint}`, { code: 'commander.unknownCommand' })
}

/** Flags of every command; they may stand before or after it. */
function addGlobalOptions(program: Command): void {
  program
    .option(
      '-c, --config <file>',
      'the inventory (default: $REPLCTL_CONFIG, ./replctl.yaml, then $XDG_CONFIG_HOME/replctl)',
    )
    .option('--json', 'one JSON document on standard output')
    .option('-q, --quiet', 'no progress')
    .option('-v, --verbose', 'show each remote command as it runs')
    .option('--dry-run', 'show the plan, from the same code that would run it; change nothing')
    .option('--yes', 'answer questions with yes; it never overrides a safety check')
    .option(
      '--timeout <duration>',
      'bound of each wait for a state, e.g. 90s, 10 days at most (default: 60s, env: REPLCTL_TIMEOUT)',
    )
    .option('--no-color', 'no colours (also: NO_COLOR)')
}

function addCommand(program: Command, spec: CommandSpec, options: ProgramOptions): void {
  const words = spec.name.split(' ')
  const name = words.pop() ?? ''
  const parent = words.reduce((group, word) => groupOf(group, word), program)
  // A group may be a command as well: `backup`, and `backup list`.
  const command = (parent.commands.find((one) => one.name() === name) ?? parent.command(name))
    .summary(spec.summary)
    .description(`${spec.summary}\n\n${asParagraphs(spec.description)}`)
  for (const arg of spec.args) command.addArgument(new Argument(arg.syntax, arg.summary))
  for (const option of spec.options) {
    const made = new Option(option.flags, option.summary).makeOptionMandatory(option.isRequired === true)
    command.addOption(option.choices === undefined ? made : made.choices([...option.choices]))
  }
  addGlobalOptions(command)
  command.addHelpText('after', `\nExamples:\n${spec.examples.map((example) => `  ${example}`).join('\n')}`)
  command.action(async (...given: unknown[]) => {
    const args = given.slice(0, spec.args.length) as Call['args']
    const all = { ...program.opts(), ...definedOf(command) }
    await options.run(spec, { command: spec.name, args, options: all, flags: readFlags(all, options.env) })
  })
}

/** Lines of a paragraph as one: the terminal's width breaks them. Indented lines (lists) stay as they are. */
function asParagraphs(text: string): string {
  return text.replace(/(?<=^\S.*)\n(?=\S)/gm, ' ')
}

/** Options of the command itself; those that were not given must not hide the program's. */
function definedOf(command: Command): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(command.opts()).filter(([name]) => command.getOptionValueSource(name) === 'cli'),
  )
}

function groupOf(parent: Command, word: string): Command {
  const existing = parent.commands.find((command) => command.name() === word)
  if (existing !== undefined) return existing
  const summaries: Readonly<Record<string, string>> = {
    archive: 'the WAL archive: is it whole, how far is it behind, what may go',
    init: 'begin a cluster',
    sandbox: 'a throw-away cluster on this machine',
  }
  return parent.command(word).description(summaries[word] ?? word)
}

function readFlags(all: Readonly<Record<string, unknown>>, env: ProgramOptions['env']): GlobalFlags {
  return {
    config: all.config as string | undefined,
    isJson: all.json === true,
    isQuiet: all.quiet === true,
    isVerbose: all.verbose === true,
    isDryRun: all.dryRun === true,
    isYes: all.yes === true,
    timeoutMs:
      typeof all.timeout === 'string'
        ? readTimeout(all.timeout, '--timeout')
        : readTimeout(env.REPLCTL_TIMEOUT || undefined, '$REPLCTL_TIMEOUT'),
    noColor: all.color === false,
  }
}

/** Longer waits, which some steps double, are more than the timers of Node.js can count: they would end at once. */
const longestTimeoutMs = 10 * 86_400_000

/** `source`: where it was given, for the message. An empty variable is as good as none. */
function readTimeout(text: string | undefined, source: string): number | undefined {
  if (text === undefined) return undefined
  const refuse = (what: string, hint: string) => {
    throw new ReplctlError('usage', `${source}: "${text}" ${what}`, { hint })
  }
  let timeoutMs: number
  try {
    timeoutMs = parseDuration(text, 's')
  } catch {
    return refuse('is not a duration', 'For example 90s or 5min.')
  }
  if (timeoutMs === 0) return refuse('is no time at all', 'For example 1s; 60s is the default.')
  if (timeoutMs > longestTimeoutMs) return refuse('is too long', 'It can be at most 10 days: 10d.')
  return timeoutMs
}
