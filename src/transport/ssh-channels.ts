import type { Client, ClientChannel } from 'ssh2'
import { ReplctlError } from '../errors.ts'
import { defer } from './deferred.ts'
import { createGate } from './gate.ts'
import type { Exit, Launch, PipedProcess } from './piped-process.ts'

/** sshd allows ten sessions a connection by default; two stay free to kill what hangs. */
const mostSessions = 8

/** Launches shell lines over one ssh connection, no more at once than its sshd takes. */
export function createChannelLauncher(host: string, client: Client): Launch {
  const gate = createGate(mostSessions)
  const settle = async (): Promise<void> => {
    const { stdout, stderr, closed } = await execute(client, 'true', async () => {})
    stdout.resume()
    stderr.resume()
    await closed
  }
  return async (line, kind, signal) => {
    for (let attempt = 1; ; attempt++) {
      const release = await gate.enter(kind, signal)
      try {
        const process = await execute(client, line, settle)
        process.closed.then(release).catch(release)
        return process
      } catch (error) {
        release()
        if (!isSessionRefusal(error)) throw error
        const isFirstTry = attempt === 1
        if (!gate.lower() && !isFirstTry) throw tooManySessions(host, error)
        if (kind === 'urgent' && !isFirstTry) throw tooManySessions(host, error)
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
  }
}

function execute(client: Client, line: string, settle: () => Promise<void>): Promise<PipedProcess> {
  return new Promise((resolve, reject) => {
    // A fast command's output, status and end may come in one packet: whoever listens a tick later misses them.
    client.exec(line, (error, channel) => (error ? reject(error) : resolve(channelProcess(channel, settle))))
  })
}

function isSessionRefusal(error: unknown): error is Error {
  return error instanceof Error && /open fail/i.test(error.message)
}

function tooManySessions(host: string, cause: Error): ReplctlError {
  return new ReplctlError('remote-command-failed', `sshd on ${host} refuses a further session`, {
    detail: 'Its MaxSessions is too low: a long-lived command and a short one run at the same time.',
    hint: 'Set MaxSessions in its sshd_config to 4 at least; 10 is the default.',
    cause,
  })
}

function channelProcess(channel: ClientChannel, settle: () => Promise<void>): PipedProcess {
  const exited = defer<Exit | undefined>()
  const closed = defer()
  const stderrClosed = defer()
  channel.on('error', () => {})
  channel.on('exit', (status: number | null, signal?: string) =>
    exited.resolve({ status, signal: signal ?? null }),
  )
  channel.stderr.on('close', () => stderrClosed.resolve())
  // Closed without an exit status: the link was lost, and the outcome is unknown.
  channel.on('close', () => {
    exited.resolve(undefined)
    stderrClosed.promise.then(() => closed.resolve()).catch(() => {})
  })
  let isOver = false
  // ssh2 forgets the callbacks of a channel that closes.
  const unanswered = new Set<(error: Error) => void>()
  closed.promise
    .then(() => {
      isOver = true
      for (const reject of unanswered) reject(new Error('the channel was closed'))
    })
    .catch(() => {})
  return {
    stdout: channel,
    stderr: channel.stderr,
    exited: exited.promise,
    closed: closed.promise,
    settle,
    write: (data) =>
      new Promise((resolve, reject) => {
        if (isOver || !channel.writable) return reject(new Error('the channel is closed'))
        unanswered.add(reject)
        channel.write(data, (error) => {
          unanswered.delete(reject)
          if (error) reject(error)
          else resolve()
        })
      }),
    endInput: () => channel.end(),
    terminate: () => channel.signal('TERM'),
    release: () => {
      channel.resume()
      channel.stderr.resume()
      channel.close()
    },
  }
}
