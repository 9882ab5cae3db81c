import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parsePrivateKey, readIdentityFile } from '../../../src/transport/private-key.ts'

let dir: string

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'replctl-keys-'))
  for (const [name, passphrase] of [
    ['plain', ''],
    ['locked', 'open sesame'],
  ] as const)
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', passphrase, '-f', join(dir, name)])
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const textOf = (name: string): string => readFileSync(join(dir, name), 'utf8')

test('a key is parsed once, however many hosts it logs in on', async () => {
  const [first, second] = await Promise.all(
    ['plain', 'plain'].map((name) => readIdentityFile(join(dir, name))),
  )
  expect(first).toMatchObject({ is: 'usable' })
  const keys = [first, second].map((file) => (file?.is === 'usable' ? file.key : undefined))
  expect(keys[0]).toBeDefined()
  expect(keys[1]).toBe(keys[0])
  const [locked, again] = await Promise.all(
    [1, 2].map(() => parsePrivateKey(textOf('locked'), 'open sesame')),
  )
  expect(locked).not.toBeInstanceOf(Error)
  expect(again).toBe(locked)
})

test('with another passphrase it is another matter', async () => {
  expect(await parsePrivateKey(textOf('locked'), 'open barley')).toBeInstanceOf(Error)
  expect(await parsePrivateKey(textOf('locked'))).toBeInstanceOf(Error)
  expect(await parsePrivateKey(textOf('locked'), 'open sesame')).not.toBeInstanceOf(Error)
})
