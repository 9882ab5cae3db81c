import { describe, expect, test } from 'vitest'
import { lastValues, parseConfigFile } from '../../../src/postgres/config-file.ts'
import { buildConninfo, parseConninfo } from '../../../src/postgres/conninfo.ts'
import { fixture, majorsWith } from './fixture.ts'

describe('building', () => {
  test.each([
    [{}, ''],
    [{ host: '10.0.0.11', port: '5432' }, 'host=10.0.0.11 port=5432'],
    [
      { host: '/run/postgresql', application_name: 'shop_pg-2' },
      'host=/run/postgresql application_name=shop_pg-2',
    ],
    [{ host: 'fe80::1%eth0' }, 'host=fe80::1%eth0'],
    [{ user: '' }, "user=''"],
    [{ user: 'a b' }, "user='a b'"],
    [{ password: "it's" }, "password='it\\'s'"],
    [{ passfile: 'C:\\x' }, "passfile='C:\\\\x'"],
    [{ options: '-c a=b' }, "options='-c a=b'"],
    [{ dbname: 'tab\tline\n' }, "dbname='tab\tline\n'"],
  ])('%j', (entries, text) => {
    expect(buildConninfo(entries)).toBe(text)
    expect(parseConninfo(text)).toEqual(entries)
  })

  test('what cannot be written is refused', () => {
    expect(() => buildConninfo({ 'host=x user': 'y' })).toThrow(RangeError)
    expect(() => buildConninfo({ host: 'a\0b' })).toThrow(RangeError)
  })
})

// Each of these was compared with PQconninfoParse() of libpq 15.
describe('reading', () => {
  test.each([
    ['host = a  port=5432', { host: 'a', port: '5432' }],
    ['host=', { host: '' }],
    ["host='a'user='b'", { host: 'a', user: 'b' }],
    ["user=it\\'s password=a\\ b", { user: "it's", password: 'a b' }],
    ["user=o'hara", { user: "o'hara" }],
    ['password=a=b', { password: 'a=b' }],
    ['user=a\\', { user: 'a' }],
    ['user=a user=b', { user: 'b' }],
    ['user=a\u00a0b', { user: 'a\u00a0b' }],
    ['', {}],
    [' \n ', {}],
    ['postgresql://', {}],
    ['postgres://pg1', { host: 'pg1' }],
    [
      'postgresql://u:p%40ss@[::1]:5433/shop',
      { user: 'u', password: 'p@ss', host: '::1', port: '5433', dbname: 'shop' },
    ],
    ['postgresql://a:1,b:2/x', { host: 'a,b', port: '1,2', dbname: 'x' }],
    ['postgresql://a,b:2', { host: 'a,b', port: ',2' }],
    ['postgresql://%2Frun%2Fpostgresql/x', { host: '/run/postgresql', dbname: 'x' }],
    ['postgresql:///x?host=/run&port=5433', { dbname: 'x', host: '/run', port: '5433' }],
    ['postgresql://u@/?application_name=a%20b', { user: 'u', application_name: 'a b' }],
    ['postgresql://h/x?ssl=true', { host: 'h', dbname: 'x', sslmode: 'require' }],
    ['postgresql://h/x?sslmode=disable&', { host: 'h', dbname: 'x', sslmode: 'disable' }],
  ])('%j', (text, entries) => {
    expect(parseConninfo(text)).toEqual(entries)
  })

  test.each([
    'host',
    'host a',
    "user='secret",
    '=secret',
    'postgresql://[::1',
    'postgresql://[::1]x',
    'postgresql://secret%zz',
    'postgresql://secret%00',
    'postgresql://h/x?secret',
    'postgresql://h/x?secret=b=c',
  ])('%j is refused, without repeating it', (text) => {
    expect(() => parseConninfo(text)).toThrow(RangeError)
    expect(() => parseConninfo(text)).not.toThrow(/secret/)
  })
})

test.each(majorsWith('basebackup.txt'))('what pg_basebackup -R wrote for PostgreSQL %i', (major) => {
  const file = major < 12 ? 'recovery.conf' : 'postgresql.auto.conf'
  const settings = lastValues(parseConfigFile(fixture(`pg${major}/basebackup-${file}`)))
  expect(settings.get('primary_slot_name')).toBe('shop_pg2')
  expect(parseConninfo(settings.get('primary_conninfo') ?? '')).toMatchObject({
    host: '/tmp/replctl-capture',
    port: '5432',
    user: 'postgres',
    application_name: 'shop_pg2',
    passfile: expect.stringMatching(/\.pgpass$/),
  })
})
