import { describe, expect, test } from 'vitest'
import { addGuardOption, removeGuardOption } from '../../../src/postgres/pg-ctl-conf.ts'

const server = '/var/lib/postgresql/.replctl/shop/guarded-postgres'
const packaged = `# Automatic pg_ctl configuration
# This configuration file contains cluster specific options to be passed to
# pg_ctl(1).

pg_ctl_options = ''
`
const added = (text: string | null, common?: string): string => {
  const options = addGuardOption(text, server, common)
  if ('refusal' in options) throw new Error(options.refusal)
  return options.text
}

describe('the start guard in Debian’s pg_ctl.conf', () => {
  test('stands in a block of its own behind what is there', () => {
    expect(added(packaged)).toBe(`${packaged}# BEGIN replctl: the start guard runs before the server
pg_ctl_options = '-p ${server}'
# END replctl
`)
  })

  test.each([
    ['none', '# nothing\n', ''],
    ['simple', 'pg_ctl_options = -w\n', '-w '],
    ['quoted', "  PG_CTL_OPTIONS='-w -t 300'  # slow disks\n", '-w -t 300 '],
    ['without an equals sign', "pg_ctl_options '-t 9'\n", '-t 9 '],
    ['the last one counts', "pg_ctl_options = '-t 1'\npg_ctl_options = '-t 2'\n", '-t 2 '],
    ['quotes in it', `pg_ctl_options = '-o ''-c x=\\\\y'''\n`, `-o ''-c x=\\\\y'' `],
    ['no line break at the end', "pg_ctl_options = '-t 3'", '-t 3 '],
  ])('repeats the operator’s options: %s', (_name, text, options) => {
    expect(added(text)).toContain(`\npg_ctl_options = '${options}-p ${server}'\n`)
    expect(added(added(text))).toBe(added(text))
    expect(removeGuardOption(added(text)).trimEnd()).toBe(text.trimEnd())
  })

  test('follows the operator’s line when that is changed later', () => {
    const changed = added(packaged).replace("pg_ctl_options = ''", "pg_ctl_options = '-t 77'")
    expect(added(changed)).toContain(`'-t 77 -p ${server}'`)
  })

  test('a file of its own hides the common one, so it repeats that one’s options', () => {
    expect(added(null, "pg_ctl_options = '-t 5'\n")).toContain(`'-t 5 -p ${server}'`)
    expect(removeGuardOption(added(null))).toBe('')
  })

  test('is refused where it cannot be right', () => {
    for (const text of [
      "pg_ctl_options = '-p /opt/own'\n",
      "include = 'x.conf'\n",
      "include_dir 'conf.d'\n",
    ]) {
      expect(addGuardOption(text, server)).toHaveProperty('refusal')
    }
    expect(addGuardOption(packaged, '/home/my user/guarded-postgres')).toHaveProperty('refusal')
    expect(addGuardOption(packaged, "/home/o'neil/guarded-postgres")).toHaveProperty('refusal')
  })

  test('what is not replctl’s is never taken out', () => {
    for (const text of [
      packaged,
      '# BEGIN replctl: the start guard runs before the server\n',
      '# END replctl\n',
      '',
    ]) {
      expect(removeGuardOption(text)).toBe(text)
    }
  })
})
