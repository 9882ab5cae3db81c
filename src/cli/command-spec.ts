import type { Problem } from '../cluster/problem.ts'

/** Where a command runs: everything of `process` that it may use. Only cli/ knows it. */
export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly home: string
  readonly userName: string
  readonly uid: number
  readonly hostName: string
  readonly pid: number
  /** Of standard error, where progress goes. */
  readonly isTerminal: boolean
  /** Of standard output, where the answer goes. */
  readonly isOutTerminal: boolean
  readonly width: number
  writeOut(text: string): void
  writeError(text: string): void
}

/** Flags that every command has. */
export interface GlobalFlags {
  readonly config: string | undefined
  readonly isJson: boolean
  readonly isQuiet: boolean
  readonly isVerbose: boolean
  readonly isDryRun: boolean
  readonly isYes: boolean
  /** Undefined: the operator did not say; waits are then bounded by 60 s. */
  readonly timeoutMs: number | undefined
  readonly noColor: boolean
}

/** One call of a command. */
export interface Call {
  /** As typed, e.g. `init primary`. */
  readonly command: string
  readonly args: readonly (string | readonly string[] | undefined)[]
  readonly options: Readonly<Record<string, unknown>>
  readonly flags: GlobalFlags
  readonly io: Surroundings
  /** Aborted by SIGINT or SIGTERM. */
  readonly signal: AbortSignal
  readonly found: FoundCluster
}

/** What was learned of the cluster on the way, for the answer of a call that fails: a pipe is not read twice. */
export interface FoundCluster {
  /** The inventory was read, or tried to be. */
  isSought: boolean
  name: string | null
}

/** What a command gives back; report and exit code are made of it. */
export interface Answer {
  readonly exitCode: number
  readonly changed: boolean
  readonly cluster: string | null
  readonly result: object | null
  readonly problems: readonly Problem[]
  /** For people, on standard output; without --json only. */
  readonly text: string
}

export interface OptionSpec {
  readonly flags: string
  readonly summary: string
  readonly choices?: readonly string[]
  readonly isRequired?: true
}

export interface CommandSpec {
  /** e.g. `init primary`. */
  readonly name: string
  /** commander's syntax, e.g. `<node...>`. */
  readonly args: readonly { readonly syntax: string; readonly summary: string }[]
  readonly summary: string
  /** What it changes, its point of no return, how to finish by hand. */
  readonly description: string
  readonly examples: readonly string[]
  readonly options: readonly OptionSpec[]
  /** Whether its standard output is as it is, also with --json (`schema`, `completion`). */
  readonly isRaw?: true
  /** It only looks: a signal ends it on the spot. */
  readonly onlyLooks?: true
  /** It has no cluster of the inventory's: one that lies around has nothing to do with it. */
  readonly readsNoInventory?: true
  /** Loaded only when the command is called: start-up stays quick. */
  load(): Promise<{ run(call: Call): Promise<Answer> }>
}
