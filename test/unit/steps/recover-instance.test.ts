import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startRecoveryScript } from '../../../src/steps/recover-instance.ts'

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
    const told = execFileSync('sh', ['-c', script, 'sh', 'state', home, data], { encoding: 'utf8' })
    expect(told).toBe(`-c\ndata_directory=${data}\n`)
  },
)
