import { describe, expect, test } from 'vitest'
import {
  commentOutSettings,
  emptySetting,
  ensureLastInclude,
  includeMarker,
  parseConfigFile,
  quoteConfigValue,
  removeInclude,
  removeSettings,
} from '../../../src/postgres/config-file.ts'
import { fixture, jsonFixture, majorsWith } from './fixture.ts'

interface Entry {
  readonly name: string
  readonly value: string
  readonly line: number
}

describe('quoting', () => {
  test.each(majorsWith('auto-conf-values.json'))('is what ALTER SYSTEM of PostgreSQL %i writes', (major) => {
    for (const { value, line } of jsonFixture<{ value: string; line: string }[]>(
      `pg${major}/auto-conf-values.json`,
    )) {
      expect(`log_line_prefix = ${quoteConfigValue(value)}`).toBe(line)
    }
  })

  test.each(['', "it's", 'back\\slash', "\\'", 'two\nlines\r', '# no comment', 'Grüße', '\\n'])(
    '%j is read back as it was',
    (value) => {
      expect(parseConfigFile(`name = ${quoteConfigValue(value)} # comment`)).toEqual([
        { name: 'name', value, line: 1 },
      ])
    },
  )

  test('NUL is refused', () => {
    expect(() => quoteConfigValue('a\0')).toThrow(RangeError)
  })
})

describe('reading', () => {
  test.each(majorsWith('quirks.json'))('is as PostgreSQL %i reads', (major) => {
    const directives = /^include/
    const read = parseConfigFile(fixture('quirks.conf')).filter(({ name }) => !directives.test(name))
    const server = jsonFixture<Entry[]>(`pg${major}/quirks.json`)
    expect(read).toEqual(server.map((entry) => ({ ...entry, name: entry.name.toLowerCase() })))
  })

  test('directives are entries like settings', () => {
    const text = "include 'a.conf'\ninclude_if_exists = 'b.conf' # maybe\n\nInclude_Dir 'conf.d'#all\n"
    expect(parseConfigFile(text)).toEqual([
      { name: 'include', value: 'a.conf', line: 1 },
      { name: 'include_if_exists', value: 'b.conf', line: 2 },
      { name: 'include_dir', value: 'conf.d', line: 4 },
    ])
  })

  test.each([
    'port',
    'port =',
    "port = 'open",
    'a b c',
    '= 5',
    '1port = 5',
    "a = 'b' c",
    'a$ = 5',
    'a = b.c',
    'a = b,c',
    'a = 1.5GB',
  ])('%j, which the server refuses, is left out', (line) => {
    expect(parseConfigFile(line)).toEqual([])
  })
})

describe('the one line replctl adds', () => {
  const line = `include_if_exists = 'replctl.conf'  ${includeMarker}\n`
  const ensure = (text: string) => ensureLastInclude(text, 'replctl.conf')

  test.each([
    ['an empty file', '', line],
    ['a file', 'port = 5432\n', `port = 5432\n${line}`],
    ['a file that ends without a line break', 'port = 5432', `port = 5432\n${line}`],
    ['settings added after it', `${line}port = 5432\n`, `port = 5432\n${line}`],
    ['the line twice', `${line}port = 5432\n${line}`, `port = 5432\n${line}`],
    ['an include_dir after it', `${line}include_dir 'conf.d'\n`, `include_dir 'conf.d'\n${line}`],
    [
      'a line of the same file by the operator',
      "include_if_exists = 'replctl.conf'\n",
      `include_if_exists = 'replctl.conf'\n${line}`,
    ],
  ])('%s', (_name, before, after) => {
    expect(ensure(before)).toBe(after)
    expect(ensure(after)).toBe(after)
  })

  test('comments after it may stay: it is still the last setting', () => {
    const text = `port = 5432\n${line}\n# Add settings for extensions here\n`
    expect(ensure(text)).toBe(text)
  })

  test('is taken back without a trace', () => {
    const text = fixture('quirks.conf')
    expect(removeInclude(ensure(text), 'replctl.conf')).toBe(text)
  })

  test('another file by replctl is another line', () => {
    expect(removeInclude(ensure(''), 'other.conf')).toBe(line)
  })
})

describe('settings of others', () => {
  const text =
    "# port = 1\nPort = 5433 # mine\nwork_mem = 4MB\n\nport 5434\r\nshared_preload_libraries = 'port'\n"

  test('are commented out with the reason, and only they', () => {
    const commented = commentOutSettings(text, ['PORT'], 'replctl.conf\nsets it')
    expect(commented).toBe(
      '# port = 1\n#Port = 5433 # mine  # commented out by replctl: replctl.conf sets it\nwork_mem = 4MB\n\n' +
        "#port 5434  # commented out by replctl: replctl.conf sets it\r\nshared_preload_libraries = 'port'\n",
    )
    expect(commentOutSettings(commented, ['port'], 'again')).toBe(commented)
  })

  test('are emptied where they stand, and only they', () => {
    const text =
      "# synchronized_standby_slots = 'x'\nport = '1'\nsynchronized_standby_slots = 'shop_pg2, it''s'\nz = 'on'\n"
    const emptied =
      "# synchronized_standby_slots = 'x'\nport = '1'\nsynchronized_standby_slots = ''\nz = 'on'\n"
    expect(emptySetting(text, 'synchronized_standby_slots')).toBe(emptied)
    expect(emptySetting(emptied, 'synchronized_standby_slots')).toBe(emptied)
  })

  test('are removed, and only they', () => {
    expect(removeSettings(text, ['port'])).toBe(
      "# port = 1\nwork_mem = 4MB\n\nshared_preload_libraries = 'port'\n",
    )
  })

  test.each(majorsWith('postgresql.auto.conf'))(
    'postgresql.auto.conf of PostgreSQL %i keeps its header',
    (major) => {
      const before = fixture(`pg${major}/postgresql.auto.conf`)
      const after = removeSettings(before, ['port', 'log_line_prefix'])
      expect(parseConfigFile(before).map(({ name }) => name)).toEqual(
        expect.arrayContaining(['port', 'log_line_prefix']),
      )
      expect(after).toMatch(/^# Do not edit this file manually!\n# It will be overwritten by .*\n$/)
    },
  )
})
