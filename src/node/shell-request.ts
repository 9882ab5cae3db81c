import { randomBytes } from 'node:crypto'
import { type Command, quoteForShell, Secret } from '../command.ts'
import type { CommandResult } from '../transport/transport.ts'
import type { LineReader } from './line-reader.ts'

/**
 * What a shell that reads requests from its standard input needs to carry one out: `carry_out run TOKEN LINES LINES`, followed by
 * that many lines of a script and of its standard input. It runs in a subshell without the lock (9). Its output goes
 * out as it comes, ended by a line of the token and the status, then what it said on standard error, then the token.
 */
export const carryOutScript = `
take_lines() {
  taken= count=0
  while [ $count -lt "$1" ]; do
    IFS= read -r line || return 1
    if [ $count -eq 0 ]; then taken=$line; else taken="$taken
$line"; fi
    count=$((count + 1))
  done
}
carry_out() {
  take_lines "$3" || return 1
  script=$taken
  take_lines "$4" || return 1
  { said=$({ printf '%s' "$taken" | ( exec 9>&- 8>&-; eval "$script" ) 2>&1 >&8; } 2>/dev/null); status=$?; } 8>&1
  printf '\\n%s %s\\n%s\\n%s\\n' "$2" "$status" "$said" "$2"
}
`

/** Longer input is read faster by a process of its own. */
const mostCharacters = 50_000

/** Whether a command may be given to such a shell. */
export function isForRunningShell({ isQuick, runAs, script, stdin }: Command): boolean {
  if (isQuick !== true || runAs !== 'os-user' || stdin instanceof Uint8Array) return false
  const input = textOf(stdin)
  return !input.includes('\0') && input.length + script.length <= mostCharacters
}

/** A command as a request; the token, which nothing that it prints can hold, marks the end of the answer. */
export function requestOf(command: Command): { readonly text: string; readonly token: string } {
  const token = `@@@${randomBytes(8).toString('hex')}`
  const script = ['set --', ...command.args.map(quoteForShell)].join(' ')
  const program = `${script}\n${command.script}`.split('\n')
  const input = textOf(command.stdin).split('\n')
  const text = [`run ${token} ${program.length} ${input.length}`, ...program, ...input].join('\n')
  return { text, token }
}

/** Reads the answer to a request. */
export async function readResult(
  lines: LineReader,
  token: string,
  timeoutMs: number,
): Promise<CommandResult> {
  const deadline = Date.now() + timeoutMs
  const stdout: string[] = []
  const stderr: string[] = []
  let status: number | null = null
  for (;;) {
    const line = await lines.next(deadline - Date.now())
    if (status !== null) {
      if (line === token)
        return { status, signal: null, stdout: stdout.join('\n'), stderr: stderr.join('\n') }
      stderr.push(line)
    } else if (line.startsWith(`${token} `)) {
      status = Number(line.slice(token.length + 1))
    } else {
      stdout.push(line)
    }
  }
}

const textOf = (stdin: Command['stdin']): string =>
  stdin instanceof Secret ? stdin.reveal() : typeof stdin === 'string' ? stdin : ''
