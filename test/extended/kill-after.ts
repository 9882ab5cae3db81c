import { expect } from 'vitest'
import type { TestCluster } from '../kit/test-cluster.ts'

/** Told at the end of a step that was applied (✓) or had nothing to do (·), with its node and its title. */
const endOfStep = /^[✓·] /

/**
 * Runs a command and has it killed at the end of the first step with this title: by a SIGKILL of its own, so that it never
 * gets further, however quick it is. Fails where no such step ended.
 */
export async function killAfter(cluster: TestCluster, args: readonly string[], title: RegExp): Promise<void> {
  const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(hookFor(title))}` }
  const { signal, exitCode, stderr } = await cluster.replctl(args, { env, timeoutMs: 300_000 })
  expect({ signal, exitCode }, `killed after ${title}\n${stderr}`).toEqual({
    signal: 'SIGKILL',
    exitCode: null,
  })
}

/** What is loaded into replctl: nothing in replctl itself knows of it. */
const hookFor = (title: RegExp) => `
const { write } = process.stderr
process.stderr.write = function (chunk, ...rest) {
  const result = write.call(this, chunk, ...rest)
  const ends = String(chunk).split('\\n').filter((line) => ${endOfStep}.test(line))
  if (ends.some((line) => ${title}.test(line))) process.kill(process.pid, 'SIGKILL')
  return result
}
`
