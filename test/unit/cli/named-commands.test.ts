import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { commands } from '../../../src/cli/commands/index.ts'

const root = fileURLToPath(new URL('../../..', import.meta.url))

/** Commands of replctl that are promised, whether they are there yet or not. */
const promised = [
  'watch',
  'config diff',
  'config apply',
  'restart',
  'archive check',
  'backup expire',
  'resume',
]

test('no hint, and nothing that is rendered, names a command that is not there', () => {
  const absent = promised.filter((name) => commands.every((command) => command.name !== name))
  const files = ['src', 'templates'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name)),
  )
  const naming = files.flatMap((file) => {
    const text = readFileSync(file, 'utf8').replaceAll(/\s+/g, ' ')
    return absent.filter((name) => text.includes(`replctl ${name}`)).map((name) => `${file}: ${name}`)
  })
  expect(naming).toEqual([])
})
