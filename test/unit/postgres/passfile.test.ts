import { expect, test } from 'vitest'
import { parsePassfile, passfileLine } from '../../../src/postgres/passfile.ts'

const entry = { host: '10.0.0.11', port: '5432', database: '*', user: 'replicator', password: 'x' }

test.each([
  ['x', '10.0.0.11:5432:*:replicator:x'],
  ['a:b', '10.0.0.11:5432:*:replicator:a\\:b'],
  ['a\\b', '10.0.0.11:5432:*:replicator:a\\\\b'],
  ['\\:', '10.0.0.11:5432:*:replicator:\\\\\\:'],
  ["#  'quotes' ", "10.0.0.11:5432:*:replicator:#  'quotes' "],
  ['', '10.0.0.11:5432:*:replicator:'],
])('password %j', (password, line) => {
  expect(passfileLine({ ...entry, password })).toBe(line)
  expect(parsePassfile(`${line}\n`)).toEqual([{ ...entry, password }])
})

test('an IPv6 address is escaped like anything else', () => {
  const line = passfileLine({ ...entry, host: 'fd00::11', port: 5432 })
  expect(line).toBe('fd00\\:\\:11:5432:*:replicator:x')
  expect(parsePassfile(line)).toEqual([{ ...entry, host: 'fd00::11' }])
})

test.each(['two\nlines', 'carriage\rreturn', 'nul\0'])('password %j fits into no passfile', (password) => {
  expect(() => passfileLine({ ...entry, password })).toThrow(
    expect.objectContaining({ code: 'password-invalid' }),
  )
  expect(() => passfileLine({ ...entry, password })).not.toThrow(new RegExp(password))
})

test('comments, blank and incomplete lines are passed over', () => {
  expect(parsePassfile('# host:port:db:user:pw\n\na:b:c\n::::\nh:1:d:u:p:q\r\n')).toEqual([
    { host: '', port: '', database: '', user: '', password: '' },
    { host: 'h', port: '1', database: 'd', user: 'u', password: 'p' },
  ])
})
