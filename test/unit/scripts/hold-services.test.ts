import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { temporaryFolder } from '../config/inventory-file.ts'

const script = new URL('../../../scripts/lib/hold-services.mjs', import.meta.url).href
const { hasLeftover, holdServices, removeLeftover } = await import(script)

/** Of a process that has ended. */
const deadPid = () => spawnSync('true').pid

describe('while packages are installed', () => {
  test('policy-rc.d keeps their services from starting, and goes away again', async () => {
    const path = join(await temporaryFolder(), 'policy-rc.d')
    const release = holdServices([], path)
    expect(spawnSync(path).status).toBe(101)
    expect(statSync(path).mode & 0o777).toBe(0o755)
    release()
    expect(existsSync(path)).toBe(false)
  })

  test("the system's own policy stays as it is", async () => {
    const path = join(await temporaryFolder(), 'policy-rc.d')
    writeFileSync(path, '#!/bin/sh\nexit 101\n')
    holdServices([], path)()
    expect(hasLeftover(path)).toBe(false)
    expect(readFileSync(path, 'utf8')).toBe('#!/bin/sh\nexit 101\n')
  })

  test.each(['SIGHUP', 'SIGINT', 'SIGTERM'])('%s does not leave it behind', async (signal) => {
    const path = join(await temporaryFolder(), 'policy-rc.d')
    const installation = `
      const { holdServices } = await import(${JSON.stringify(script)})
      const release = holdServices([], ${JSON.stringify(path)})
      process.kill(process.pid, '${signal}')
      await new Promise((resolve) => setTimeout(resolve, 50)) // so that Node.js would act on it
      release()`
    const ended = spawnSync(process.execPath, ['--input-type=module', '-e', installation])
    expect({ status: ended.status, signal: ended.signal }).toEqual({ status: 0, signal: null })
    expect(existsSync(path)).toBe(false)
  })

  test('what a killed run left behind is removed by the next one, what a running one needs is not', async () => {
    const path = join(await temporaryFolder(), 'policy-rc.d')
    const release = holdServices([], path)
    expect(hasLeftover(path)).toBe(false)
    const text = readFileSync(path, 'utf8')
    expect(text).toContain(`${process.pid}`)
    release()
    expect(hasLeftover(path)).toBe(false)
    writeFileSync(path, text.replace(`${process.pid}`, `${deadPid()}`))
    expect(hasLeftover(path)).toBe(true)
    removeLeftover([], path)
    expect(existsSync(path)).toBe(false)
  })
})
