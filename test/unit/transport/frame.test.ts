import { describe, expect, test } from 'vitest'
import { program, Secret, shellScript } from '../../../src/command.ts'
import { frameCommand } from '../../../src/transport/frame.ts'
import type { Elevation } from '../../../src/transport/run-as.ts'

const direct: Elevation = { by: 'none', user: 'postgres', isOsUser: true }
const awkward = `it's "x" $HOME \`id\` \\ ! \n é`

/** Undoes the octal escapes, as printf does on the host. */
function decode(line: string): string {
  const encoded = [...line.slice(line.indexOf("' sh")).matchAll(/ '([^']*)'/g)]
    .map(([, word]) => word)
    .join('')
  return Buffer.from(
    encoded.replaceAll(/\\0([0-7]{3})/g, (_whole, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    ),
    'latin1',
  ).toString()
}

describe('a framed command', () => {
  test('is one line of characters that every login shell reads alike', () => {
    const { line } = frameCommand(shellScript('x', `echo ${awkward}`, [awkward]), { elevation: direct })
    expect(line).toMatch(
      /^exec \/usr\/bin\/env -i PATH=[\w/:]+ LC_ALL=C \/bin\/sh -c '[^'!\n]*' sh( '[^'!\n]*')+$/,
    )
    expect(line).toMatch(/^[ -~]+$/)
    // Inside single quotes fish reads \\ and \' as escapes.
    expect(line).not.toMatch(/\\[\\']/)
  })

  test('is cut between escapes, however long it is: behind a backslash fish takes no quote for the end', () => {
    for (let length = 3_900; length < 4_100; length += 1) {
      const script = `${'x'.repeat(length)}${"'\\".repeat(2_000)}`
      const { line } = frameCommand(shellScript('x', script), { elevation: direct })
      expect(line).not.toMatch(/\\[\\']/)
      expect(line).not.toMatch(/\\0?[0-7]{0,2}'/)
      expect(Math.max(...line.split(' ').map((word) => word.length))).toBeLessThan(4_100)
      expect(decode(line)).toContain(script)
    }
  })

  test('holds the script and its arguments unharmed', () => {
    const { line } = frameCommand(shellScript('x', `echo ${awkward}`, [awkward, '']), { elevation: direct })
    const script = decode(line)
    expect(script.endsWith(`\necho ${awkward}`)).toBe(true)
    expect(script).toContain(`set -- 'it'\\''s "x" $HOME \`id\` \\ ! \n é' ''\n`)
    expect(script).toContain("HOME=~postgres USER='postgres' LOGNAME='postgres'; export HOME USER LOGNAME\n")
    expect(script).toContain('umask 077\n')
  })

  test('says where its output begins by a marker that stands nowhere in the line', () => {
    const framed = frameCommand(program('true'), { elevation: direct })
    expect(framed.marker).toMatch(/^[0-9a-f]{32}$/)
    expect(framed.line).not.toContain(framed.marker)
    expect(frameCommand(program('true'), { elevation: direct }).marker).not.toBe(framed.marker)
  })

  test('reads /dev/null unless it has input or keeps it open', () => {
    const scriptOf = (stdin?: string, keepInput = false): string =>
      decode(frameCommand(program('cat', [], { stdin }), { elevation: direct, keepInput }).line)
    expect(scriptOf()).toContain('exec </dev/null')
    expect(scriptOf('')).not.toContain('/dev/null\n')
    expect(scriptOf(undefined, true)).not.toContain('exec </dev/null')
  })

  test('never holds a secret', () => {
    const stdin = new Secret('hunter2')
    const framed = frameCommand(program('cat', [], { stdin }), { elevation: direct })
    expect(JSON.stringify(framed)).not.toContain('hunter2')
    expect(decode(framed.line)).not.toContain('hunter2')
  })

  test('goes through sudo or runuser with a clean environment on both sides', () => {
    const sudo = frameCommand(program('id'), {
      elevation: { by: 'sudo', user: 'postgres', isOsUser: true },
    }).line
    expect(sudo).toContain(
      'exec sudo -n -H -u postgres -- /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C /bin/sh -c "$script" sh $$',
    )
    const root = frameCommand(program('id'), {
      elevation: { by: 'runuser', user: 'postgres', isOsUser: true },
    }).line
    expect(root).toMatch(/command -v runuser >\/dev\/null && exec runuser -u postgres -- .*; exec sudo -n -H/)
    for (const line of [sudo, root])
      expect(line).toMatch(/^exec \/usr\/bin\/env -i [^']*'[^']*' sh( '[^']*')+$/)
  })

  test('finds the home of a user whose name a tilde cannot take', () => {
    const elevation: Elevation = { by: 'sudo', user: "CORP\\o'brien", isOsUser: true }
    const { line } = frameCommand(program('id'), { elevation })
    expect(line).not.toContain("o'brien")
    expect(decode(line)).toContain(`HOME="$(getent passwd 'CORP\\o'\\''brien' | cut -d: -f6)"`)
  })

  test('comes in words that the csh of Debian’s package takes, and is put together unharmed', () => {
    const text = `echo ${awkward.repeat(500)}`
    for (const by of ['none', 'sudo', 'runuser'] as const) {
      const { line } = frameCommand(shellScript('x', text), { elevation: { ...direct, by } })
      expect(line.length).toBeGreaterThan(30_000)
      expect(Math.max(...line.split(/[' ]/).map((word) => word.length))).toBeLessThan(8_000)
      expect(Math.max(...line.match(/'[^']*'/g)!.map((word) => word.length))).toBeLessThan(8_000)
      expect(decode(line).endsWith(`\n${text}`)).toBe(true)
    }
  })

  test('travels on standard input when it is too long for a command line', () => {
    const { line, preamble } = frameCommand(shellScript('x', `: ${'x'.repeat(100_000)}\necho`), {
      elevation: direct,
    })
    expect(line.length).toBeLessThan(2000)
    expect(decode(line)).toContain('IFS= read -r script\neval "$(printf %b "$script")"')
    expect(preamble.length).toBeGreaterThan(100_000)
    expect(preamble.indexOf('\n')).toBe(preamble.length - 1)
  })

  test('what root makes can be read by others, what the OS user makes cannot', () => {
    const root: Elevation = { by: 'none', user: 'root', isOsUser: false }
    expect(decode(frameCommand(program('id'), { elevation: root }).line)).toContain('umask 022')
  })
})
