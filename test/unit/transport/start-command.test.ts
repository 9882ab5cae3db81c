import { userInfo } from 'node:os'
import { PassThrough } from 'node:stream'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { program, shellScript } from '../../../src/command.ts'
import type { LaunchPad } from '../../../src/transport/command-launcher.ts'
import { createLocalTransport } from '../../../src/transport/local-transport.ts'
import { startCommand } from '../../../src/transport/start-command.ts'

afterEach(() => void vi.useRealTimers())

/** A host whose login shell hangs: it takes a command and begins nothing, and cannot be told to end. */
function hangingHost() {
  const never = new Promise<never>(() => undefined)
  const process = { isReleased: false }
  const pad: LaunchPad = {
    host: 'pg1',
    ready: async () => ({ loginUser: 'postgres', isRoot: false, osUser: 'postgres' }),
    launch: async () => ({
      stdout: new PassThrough(),
      stderr: new PassThrough(),
      exited: never,
      closed: never,
      settle: async () => undefined,
      write: async () => undefined,
      endInput: () => undefined,
      terminate: () => undefined,
      release: () => {
        process.isReleased = true
      },
    }),
  }
  return { pad, process }
}

describe('a host that logs in but begins no command', () => {
  test('does not hold a long-lived command for ever', async () => {
    vi.useFakeTimers()
    const { pad, process } = hangingHost()
    const starting = startCommand(pad, program('cat'), {}, undefined)
    const refused = expect(starting).rejects.toMatchObject({
      code: 'timeout',
      message: 'command on pg1 does not begin: cat',
      detail: expect.stringContaining('nothing for 20 s'),
    })
    await vi.advanceTimersByTimeAsync(30_000)
    await refused
    expect(process.isReleased).toBe(true)
  })

  test('is given up at once where the operator interrupts', async () => {
    vi.useFakeTimers()
    const { pad, process } = hangingHost()
    const aborter = new AbortController()
    const starting = startCommand(pad, program('cat'), { beginSignal: aborter.signal }, undefined)
    const refused = expect(starting).rejects.toMatchObject({ code: 'interrupted' })
    await vi.advanceTimersByTimeAsync(100)
    aborter.abort()
    await vi.advanceTimersByTimeAsync(9_000)
    await refused
    expect(process.isReleased).toBe(true)
  })

  test('a command that has begun outlives both the limit of its begin and an interruption', async () => {
    const { username, uid } = userInfo()
    const transport = createLocalTransport({ osUser: username, username, uid })
    const aborter = new AbortController()
    const running = await transport.start(shellScript('echo', 'while read -r line; do echo "$line"; done'), {
      beginSignal: aborter.signal,
    })
    aborter.abort()
    const heard = new Promise((resolve) => running.onStdout(resolve))
    await running.write('still here\n')
    expect(await heard).toBe('still here\n')
    running.endInput()
    expect(await running.finished).toEqual({ status: 0, signal: null })
    await transport.close()
  })
})
