import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { answerWith, inHostsFile, resolveName } from '../../../src/transport/resolve-name.ts'
import { dial } from '../../../src/transport/ssh-dial.ts'
import { someHop } from './some-hop.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'replctl-names-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** A `getent` that does this; `called` is there once it began. */
function getent(script: string) {
  const called = join(folder, 'called')
  writeFileSync(join(folder, 'getent'), `#!/bin/sh\necho $$ "$@" > ${called}\n${script}\n`, { mode: 0o755 })
  return { env: { PATH: `${folder}:/usr/bin:/bin` }, called }
}
const ask = (env: Record<string, string>, signal = new AbortController().signal, name = 'pg1.example.org') =>
  resolveName({ name, family: 0, env, signal })

describe('the addresses of a name', () => {
  test('come from the name service, each once', async () => {
    const { env, called } = getent(
      `printf '%s\\n' '10.0.0.11       STREAM pg1' '10.0.0.11 DGRAM' '10.0.0.11 RAW' 'fd00::11 STREAM' 'fd00::11 DGRAM'`,
    )
    expect(await ask(env)).toEqual([
      { address: '10.0.0.11', family: 4 },
      { address: 'fd00::11', family: 6 },
    ])
    expect(readFileSync(called, 'utf8')).toMatch(/ahosts pg1\.example\.org/)
  })

  test('a name service that is silent is killed when time is over', async () => {
    const { env, called } = getent('exec sleep 600')
    const aborter = new AbortController()
    const asking = ask(env, aborter.signal)
    await vi.waitFor(() => expect(readFileSync(called, 'utf8')).toContain('ahosts'), { timeout: 20_000 })
    aborter.abort()
    await expect(asking).rejects.toThrow()
    const [pid] = readFileSync(called, 'utf8').split(' ')
    await vi.waitFor(() => expect(() => process.kill(Number(pid), 0)).toThrow(), { timeout: 20_000 })
  })

  test('a name that is not found is told; a getent that cannot do it, or is not there, leaves it to others', async () => {
    await expect(ask(getent('exit 2').env)).rejects.toMatchObject({ code: 'ENONAME' })
    expect(await ask(getent('exit 1').env)).toBeUndefined()
    expect(await ask({ PATH: join(folder, 'none') })).toBeUndefined()
  })

  test('no process is started for an address, nor for what /etc/hosts knows', async () => {
    const { env, called } = getent('exit 2')
    expect(await ask(env, undefined, 'localhost')).toContainEqual({ address: '127.0.0.1', family: 4 })
    const { signal } = new AbortController()
    for (const address of ['127.0.0.1', '::1']) {
      await dial({ ...someHop, address, port: 1 }, env, signal).catch(() => undefined)
    }
    expect(existsSync(called)).toBe(false)
  })

  test('/etc/hosts is read as it is meant', () => {
    const text =
      '# 10.0.0.9 pg1\n127.0.0.1\tlocalhost\n10.0.0.11  db1.example.org PG1 # first\nfd00::11 pg1\nnonsense pg1\n'
    const addresses = (name: string, family: 0 | 4 | 6) =>
      inHostsFile(text, { name, family }).map(({ address }) => address)
    expect(addresses('pg1', 0)).toEqual(['10.0.0.11', 'fd00::11'])
    expect(addresses('pg1', 6)).toEqual(['fd00::11'])
    expect(addresses('10.0.0.11', 0)).toEqual([])
    expect(addresses('pg', 0)).toEqual([])
  })

  test('are given to a socket as it asks for them', () => {
    const found = [{ address: '10.0.0.11', family: 4 }]
    const answers: unknown[] = []
    const done = (...answer: unknown[]) => answers.push(answer)
    answerWith(found)('pg1', { all: true }, done)
    answerWith(found)('pg1', {}, done)
    expect(answers).toEqual([
      [null, found],
      [null, '10.0.0.11', 4],
    ])
  })
})
