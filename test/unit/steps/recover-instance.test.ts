import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startRecoveryScript } from '../../../src/steps/recover-instance.ts'
import { emptyRestoreScript } from '../../../src/steps/restore-scripts.ts'

let home: string
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), 'replctl-recover-'))
  // As pg_ctl does it: the last word of its command line goes through a shell.
  const script = '#!/bin/sh\nfor last; do :; done\neval "set -- $last" && printf "%s\\n" "$@"\n'
  writeFileSync(join(home, 'pg_ctl'), script, { mode: 0o755 })
})
afterAll(() => rmSync(home, { recursive: true }))

test.each(['plain', 'with a space', "Peter's", '$(id) "and" `more` \\'])(
  'the server is told its data directory as it is called: %s',
  (name) => {
    const data = join(home, name)
    mkdirSync(data)
    const script = `state=${home}\n${startRecoveryScript}`
    const told = execFileSync('sh', ['-c', script, 'sh', 'state', home, data, 'member'], { encoding: 'utf8' })
    expect(told).toBe(`-c\ndata_directory=${data}\n`)
  },
)

test('beside a node no link of a tablespace can be made while it recovers, and taking it back opens the folder again', () => {
  const data = join(home, 'beside')
  mkdirSync(join(data, 'pg_tblspc'), { recursive: true, mode: 0o750 })
  symlinkSync('/nowhere', join(data, 'pg_tblspc/16384'))
  const run = (script: string, ...args: string[]) =>
    execFileSync('sh', ['-c', `state=${home}\n${script}`, 'sh', 'state', ...args])
  const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8)
  run(startRecoveryScript, home, data, 'member')
  expect(modeOf(join(data, 'pg_tblspc'))).toBe('750')
  run(startRecoveryScript, home, data, 'alone')
  expect(modeOf(join(data, 'pg_tblspc'))).toBe('550')
  run(emptyRestoreScript, data)
  expect(readdirSync(data)).toEqual([])
})
