import { expect, test } from 'vitest'
import { commandLine, program, Secret, shellScript } from '../../src/command.ts'

test('the line of a program is what a shell would be given', () => {
  const command = program('/usr/bin/pg_ctl', ['-D', '/srv/my data', 'status'])
  expect(commandLine(command)).toBe("/usr/bin/pg_ctl -D '/srv/my data' status")
  expect(commandLine(command)).toBe(command.title)
})

test('of a script it shows how it begins, without what all scripts begin with, and its arguments', () => {
  const script = `begin\nset -e\n${'echo "$1"\n'.repeat(20)}`
  const args = ['/srv/pg', 'x'.repeat(100), ...Array.from({ length: 10 }, (_, index) => `word${index}`)]
  const line = commandLine(shellScript('look', script, args), ['begin\n'])
  expect(line).toMatch(
    /^sh -c 'set -e echo "\$1" [^']*…' sh \/srv\/pg 'x{60}…' word0 word1 word2 word3 word4 word5 …$/,
  )
  expect(line.length).toBeLessThan(250)
})

test('what travels through standard input is no part of it', () => {
  const command = shellScript('write', 'cat > "$1"', ['/f'], { stdin: new Secret('hunter2') })
  expect(commandLine(command)).toBe(`sh -c 'cat > "$1"' sh /f`)
})
