import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { ReplctlError } from '../errors.ts'

/** No inventory is that large: whatever goes on for longer (/dev/zero) must not fill the memory. */
export const mostBytes = 16 * 1024 * 1024
/** How long to wait for somebody who opens a pipe to write into it. */
const writerMs = 10_000
const pollMs = 20

/** What came out of pipes, by path: it comes once, and `resume` opens the cluster a second time. */
const drained = new Map<string, Buffer>()

/**
 * Reads a whole file, or what is written into a pipe. It never waits inside the system, where no signal would reach it and
 * the process could not end.
 * @throws {ReplctlError} `interrupted`; `inventory-invalid` where it is too large, or nobody writes; else what the system says
 */
export async function readBounded(path: string, file: string, signal?: AbortSignal): Promise<Buffer> {
  const known = drained.get(path)
  if (known !== undefined) return known
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const isPipe = (await handle.stat()).isFIFO()
    const content = await readAll(handle, isPipe, file, signal)
    if (isPipe) drained.set(path, content)
    return content
  } finally {
    await handle.close()
  }
}

async function readAll(
  handle: FileHandle,
  isPipe: boolean,
  file: string,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const startedAt = performance.now()
  const chunks: Buffer[] = []
  let length = 0
  let hasWriter = false
  for (;;) {
    if (signal?.aborted === true) throw interrupted()
    const chunk = await readSome(handle)
    if (chunk === null) {
      // Somebody has it open, and has not written yet: what decrypts an inventory may ask for a password first.
      hasWriter = true
      await wait(pollMs)
    } else if (chunk.length > 0) {
      chunks.push(chunk)
      length += chunk.length
      if (length > mostBytes) throw unreadable(file, 'It is larger than 16 MiB.')
    } else if (length > 0 || hasWriter || !isPipe) {
      return Buffer.concat(chunks)
    } else if (performance.now() - startedAt > writerMs) {
      throw unreadable(file, `It is a pipe, and nobody wrote into it within ${writerMs / 1000} s.`)
    } else {
      await wait(pollMs)
    }
  }
}

/** Null: nothing is there yet. */
async function readSome(handle: FileHandle): Promise<Buffer | null> {
  const chunk = Buffer.allocUnsafe(64 * 1024)
  try {
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, null)
    return chunk.subarray(0, bytesRead)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EAGAIN') return null
    throw thrown
  }
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

function unreadable(file: string, detail: string): ReplctlError {
  return new ReplctlError('inventory-invalid', `could not read ${file}`, {
    detail,
    hint: 'Name the inventory, a YAML file, with --config.',
  })
}

function interrupted(): ReplctlError {
  return new ReplctlError('interrupted', 'interrupted by a signal', { detail: 'Nothing was changed.' })
}
