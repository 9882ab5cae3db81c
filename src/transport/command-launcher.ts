import { type Command, type RunAs, Secret, shellScript } from '../command.ts'
import { type CommandSession, followCommand } from './command-session.ts'
import { settlesWithin } from './deferred.ts'
import { type FramedCommand, frameCommand } from './frame.ts'
import type { Launch, LaunchKind, PipedProcess } from './piped-process.ts'
import { chooseElevation, type LoginIdentity } from './run-as.ts'

/** What a transport gives for its commands to be launched. */
export interface LaunchPad {
  readonly host: string
  /** Resolves when commands can be launched; who we are on the host is known then. */
  ready(): Promise<LoginIdentity>
  readonly launch: Launch
}

export interface LaunchOptions {
  readonly kind: LaunchKind
  /** Aborted while the launch still waits: it is called off. */
  readonly signal: AbortSignal
  onStdout(chunk: Buffer): void
  onStderr(chunk: Buffer): void
}

/** A command that has been launched, with the means to feed, follow and kill it. */
export interface LaunchedCommand {
  readonly process: PipedProcess
  readonly session: CommandSession
  /** Kills it and all it started: SIGTERM, then SIGKILL. Resolves with whether it is known to be gone. */
  kill(): Promise<boolean>
}

/** Its arguments are process groups: each command has its own, and with sudo's pseudo-terminal a second. */
const killScript = `
signal() { s=$1; shift; for id; do kill "-$s" "-$id" || kill "-$s" "$id"; done; }
alive() { for id; do kill -0 "-$id" && return 0; done; return 1; }
{ signal TERM "$@"
tries=0
while alive "$@" && [ $tries -lt 10 ]; do tries=$((tries + 1)); sleep 0.1 || sleep 1; done
if alive "$@"; then signal KILL "$@"; fi; } 2>/dev/null`

/** How long a killed command may take to be gone before we return without that knowledge. */
const killPatienceMs = 8000
const killAttempts = 2
/** How long one that is to be killed may take to say by which ids it can be. */
const beginPatienceMs = 4000

/** Launches a command: framing, who it runs as, standard input. The same for every transport. */
export async function launchCommand(
  pad: LaunchPad,
  command: Command,
  options: LaunchOptions,
): Promise<LaunchedCommand> {
  const { host } = pad
  const identity = await pad.ready()
  const elevation = chooseElevation(identity, command.runAs)
  const framed = frameCommand(command, { elevation, keepInput: options.kind === 'long' })
  options.signal.throwIfAborted()
  const process = await pad.launch(framed.line, options.kind, options.signal)
  const { onStdout, onStderr } = options
  const session = followCommand(process, { host, command, framed, elevation, identity, onStdout, onStderr })
  feedInput(process, framed, command, options.kind).catch(() => {
    // A command may end without reading what it was given; how it ended tells.
  })
  return { process, session, kill: () => killCommand(pad, command.runAs, process, session) }
}

async function feedInput(
  process: PipedProcess,
  { preamble }: FramedCommand,
  { stdin }: Command,
  kind: LaunchKind,
): Promise<void> {
  if (preamble !== '') await process.write(preamble)
  if (stdin !== undefined) await process.write(stdin instanceof Secret ? stdin.reveal() : stdin)
  // Without input the command reads /dev/null, and an open channel can still pass on a signal.
  if (stdin !== undefined && kind !== 'long') process.endInput()
}

async function killCommand(
  pad: LaunchPad,
  runAs: RunAs,
  process: PipedProcess,
  session: CommandSession,
): Promise<boolean> {
  if (!(await settlesWithin(session.begun, beginPatienceMs))) process.terminate()
  let isGone = await settlesWithin(session.ended, 0)
  // The kill is a command like any other: what a busy host refused once is asked for again. One that never began
  // cannot be named to it.
  const attempts = session.processIds.length > 0 ? killAttempts : 1
  for (let attempt = 1; !isGone && attempt <= attempts; attempt++) {
    if (session.processIds.length > 0) await killGroups(pad, runAs, session.processIds)
    isGone = await settlesWithin(process.exited, killPatienceMs / killAttempts)
  }
  process.release()
  return isGone
}

async function killGroups(pad: LaunchPad, runAs: RunAs, ids: readonly string[]): Promise<void> {
  const command = shellScript('kill a command', killScript, ids, { runAs })
  const aborter = new AbortController()
  const ignore = (): void => {}
  const options: LaunchOptions = {
    kind: 'urgent',
    signal: aborter.signal,
    onStdout: ignore,
    onStderr: ignore,
  }
  const killing = launchCommand(pad, command, options).then(async ({ session }) => session.ended)
  await settlesWithin(killing, killPatienceMs)
  aborter.abort()
}
