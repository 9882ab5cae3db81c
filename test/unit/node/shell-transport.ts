import { spawn } from 'node:child_process'
import { type Command, Secret } from '../../../src/command.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import type { CommandResult, RunningCommand, Transport } from '../../../src/transport/transport.ts'

/** Runs commands under this machine's /bin/sh, as whoever runs the tests: for scripts that need nothing else. */
export function createShellTransport(
  home: string,
  shell: readonly string[] = ['/bin/sh'],
  searchPath = '/usr/local/bin:/usr/bin:/bin',
): Transport {
  const start = async (command: Command): Promise<RunningCommand> => {
    const env = { HOME: home, PATH: searchPath, LC_ALL: 'C' }
    const [path = '/bin/sh', ...options] = shell
    const child = spawn(path, [...options, '-c', command.script, 'sh', ...command.args], { env })
    child.stdin.on('error', () => undefined)
    const { stdin } = command
    if (stdin !== undefined) child.stdin.end(stdin instanceof Secret ? stdin.reveal() : stdin)
    return {
      finished: new Promise((resolve) =>
        child.on('close', (status, signal) => resolve({ status, signal: signal ?? null })),
      ),
      onStdout: (listener) => void child.stdout.setEncoding('utf8').on('data', listener),
      onStderr: (listener) => void child.stderr.setEncoding('utf8').on('data', listener),
      write: (text) =>
        new Promise((resolve, reject) =>
          child.stdin.write(text, (error) => (error ? reject(error) : resolve())),
        ),
      endInput: () => void child.stdin.end(),
      kill: () => void child.kill(),
    }
  }
  const run = async (command: Command): Promise<CommandResult> => {
    const running = await start(command)
    const printed = { stdout: '', stderr: '' }
    running.onStdout((chunk) => {
      printed.stdout += chunk
    })
    running.onStderr((chunk) => {
      printed.stderr += chunk
    })
    if (command.stdin === undefined) running.endInput()
    return { ...(await running.finished), ...printed }
  }
  return { ...createRecordingTransport(), host: 'local', start, run }
}
