import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, it } from 'vitest'
import { awaitCondition, runProcess } from '../kit/index.ts'
import { processesNaming } from '../kit/sandbox-caller.ts'

const script = fileURLToPath(new URL('../../scripts/quickstart.mjs', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'replctl-quickstart-home-'))
const env = { PATH: process.env.PATH, HOME: home, NO_COLOR: '1' }
afterAll(() => rmSync(home, { recursive: true, force: true }))

it('the quickstart tells a failover from beginning to end, and leaves nothing', async () => {
  const { exitCode, stdout, stderr } = await runProcess(process.execPath, [script], {
    env,
    timeoutMs: 240_000,
  })
  expect(exitCode, stdout + stderr).toBe(0)
  const told = [
    /\$ replctl sandbox up --standbys 2/,
    /primary pg1, timeline 1/,
    /\$ replctl verify\n.*read back/,
    /\$ kill -9 \d+/,
    /NO PRIMARY/,
    /\$ replctl promote/,
    /is the primary now, on timeline 2/,
    /TABLE orders/,
    /\n +42\n/,
    /2 of 2 standbys replicated the row/,
    /\$ replctl sandbox down/,
    /README\.md/,
  ]
  let rest = stdout
  for (const pattern of told) {
    expect(rest).toMatch(pattern)
    rest = rest.slice(rest.search(pattern))
  }
  await expectNothingOf(stdout)
})

it('a quickstart that is interrupted takes its sandbox away and says so by its exit code', async () => {
  const child = spawn(process.execPath, [script], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    if (!stdout.includes('REPLCTL_CONFIG') && (stdout + chunk).includes('REPLCTL_CONFIG'))
      child.kill('SIGINT')
    stdout += chunk
  })
  child.stderr.resume()
  const exitCode = await new Promise((resolve) => child.once('close', resolve))
  expect(exitCode, stdout).toBe(130)
  await expectNothingOf(stdout)
})

/** What held the cluster's lock ends a moment after the command that it was held for. */
async function expectNothingOf(stdout: string): Promise<void> {
  const [folder] = /\/\S*replctl-quickstart-\w+\/sandbox/.exec(stdout) ?? []
  expect(folder).toBeDefined()
  await awaitCondition('no process is left', () => processesNaming(folder!).length === 0, {
    timeoutMs: 5_000,
  })
  expect(() => rmSync(folder!)).toThrow(/ENOENT/)
}
