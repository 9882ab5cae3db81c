import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { program } from '../../../src/command.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { keepWithin } from '../../../src/transport/bounds.ts'

const base = { host: 'db1', command: program('pg_basebackup') }
const never = new Promise<string>(() => {})

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

describe('work within bounds', () => {
  test('that ends in time is left alone', async () => {
    const stop = vi.fn(async () => true)
    expect(await keepWithin(Promise.resolve('done'), { ...base, timeoutMs: 10, stop })).toBe('done')
    await expect(
      keepWithin(Promise.reject(new Error('own')), { ...base, timeoutMs: 10, stop }),
    ).rejects.toThrow('own')
    expect(stop).not.toHaveBeenCalled()
    expect(vi.getTimerCount()).toBe(0)
  })

  test('that takes too long is stopped, and the error names it', async () => {
    const working = keepWithin(never, { ...base, timeoutMs: 1500, stop: async () => true })
    working.catch(() => {})
    await vi.advanceTimersByTimeAsync(1499)
    await vi.advanceTimersByTimeAsync(1)
    await expect(working).rejects.toMatchObject({
      code: 'timeout',
      message: 'command on db1 took too long: pg_basebackup',
      detail: 'It was stopped after 1.5 s.',
    })
  })

  test('that cannot be stopped is said to run on', async () => {
    const working = keepWithin(never, { ...base, timeoutMs: 1, stop: async () => false })
    working.catch(() => {})
    await vi.advanceTimersByTimeAsync(1)
    await expect(working).rejects.toMatchObject({ detail: expect.stringMatching(/may still be running/) })
  })

  test('that the caller gives up is stopped; the reason is handed on if it is one of our errors', async () => {
    const aborter = new AbortController()
    const working = keepWithin(never, { ...base, signal: aborter.signal, stop: async () => true })
    aborter.abort()
    await expect(working).rejects.toMatchObject({ code: 'interrupted' })
    const own = AbortSignal.abort(new ReplctlError('lock-lost', 'lock lost'))
    await expect(keepWithin(never, { ...base, signal: own, stop: async () => true })).rejects.toMatchObject({
      code: 'lock-lost',
    })
  })

  test('that meets trouble is stopped with that error', async () => {
    const trouble = Promise.reject(new ReplctlError('remote-command-failed', 'too much'))
    const stop = vi.fn(async () => true)
    await expect(keepWithin(never, { ...base, trouble, stop })).rejects.toThrow('too much')
    expect(stop).toHaveBeenCalledOnce()
  })
})
