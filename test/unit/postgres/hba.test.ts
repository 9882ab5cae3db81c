import { describe, expect, test } from 'vitest'
import {
  ensureManagedBlock,
  hbaAddress,
  hbaLine,
  quoteHbaField,
  readManagedBlock,
  removeManagedBlock,
  replicationHbaLines,
} from '../../../src/postgres/hba.ts'
import { fixture, majorsWith } from './fixture.ts'

test.each([
  ['replicator', 'replicator'],
  ['shop-app', 'shop-app'],
  ['my db', '"my db"'],
  ['a"b', '"a""b"'],
  ['a,b', '"a,b"'],
  ['#x', '"#x"'],
  ['', '""'],
  ['all', '"all"'],
  ['replication', '"replication"'],
  ['SameUser', '"SameUser"'],
  ['+dba', '"+dba"'],
  ['@file', '"@file"'],
  ['Grüße', '"Grüße"'],
])('%j is written %s', (name, field) => {
  expect(quoteHbaField(name)).toBe(field)
})

test('a line break cannot smuggle in a second rule', () => {
  expect(() => quoteHbaField('x\nhost all all all trust')).toThrow(RangeError)
})

test('rules stand in columns, keywords without quotes', () => {
  expect(
    hbaLine({ type: 'host', database: 'all', user: 'app', address: '10.0.0.0/8', method: 'scram-sha-256' }),
  ).toBe('host    all             app             10.0.0.0/8              scram-sha-256')
  expect(hbaLine({ type: 'local', database: 'my db', user: 'all', method: 'peer' })).toBe(
    'local   "my db"         all             peer',
  )
})

test.each([
  ['10.0.0.11', '10.0.0.11/32'],
  ['10.0.0.0/8', '10.0.0.0/8'],
  ['fd00::11', 'fd00::11/128'],
  ['[fd00::11]', 'fd00::11/128'],
  ['::1', '::1/128'],
  ['fe80::1%eth0', 'fe80::1/128'],
  ['::ffff:10.0.0.1', '::ffff:10.0.0.1/128'],
  ['fd00::/64', 'fd00::/64'],
  ['pg1.example.org', 'all'],
  ['localhost', 'samehost'],
  ['1.2.3.4.example.org', 'all'],
])('a node at %s is let in from %s', (address, field) => {
  expect(hbaAddress(address)).toBe(field)
})

test('standbys may stream from each address once', () => {
  const addresses = ['10.0.0.11', 'pg2', 'pg3', '10.0.0.11']
  expect(replicationHbaLines({ addresses, user: 'replicator' })).toEqual([
    'host    replication     replicator      10.0.0.11/32            scram-sha-256',
    'host    replication     replicator      all                     scram-sha-256',
  ])
})

test('a replication role called "all" does not let in every role', () => {
  expect(replicationHbaLines({ addresses: ['10.0.0.11'], user: 'all' })).toEqual([
    'host    replication     "all"           10.0.0.11/32            scram-sha-256',
  ])
})

describe('the managed block', () => {
  const lines = ['# why', 'host replication all all scram-sha-256']
  const block = '# BEGIN replctl shop\n# why\nhost replication all all scram-sha-256\n# END replctl shop\n'
  const others = [
    '# TYPE DATABASE\n\nlocal all all peer\n',
    '',
    '\n',
    'local all all peer',
    'local all all peer\r\n',
  ]

  test.each(others)('stands above %j, which stays as it is', (text) => {
    const ensured = ensureManagedBlock(text, lines, 'shop')
    expect(ensured).toBe(block + text)
    expect(ensureManagedBlock(ensured, lines, 'shop')).toBe(ensured)
    expect(readManagedBlock(ensured)).toEqual(lines)
    expect(removeManagedBlock(ensured)).toBe(text)
  })

  test.each(majorsWith('pg_hba.conf'))('stands above the file PostgreSQL %i ships', (major) => {
    const text = fixture(`pg${major}/pg_hba.conf`)
    expect(ensureManagedBlock(text, lines, 'shop')).toBe(block + text)
    expect(readManagedBlock(text)).toBeUndefined()
  })

  test('moves to the top, and its old lines go', () => {
    const moved = `local all all peer\n${block.replace('# why', 'host all all all trust')}host all all all md5\n`
    expect(ensureManagedBlock(moved, lines, 'shop')).toBe(
      `${block}local all all peer\nhost all all all md5\n`,
    )
  })

  test('of a cluster that was renamed is replaced', () => {
    expect(ensureManagedBlock(`${block}local all all peer\n`, [], 'store')).toBe(
      '# BEGIN replctl store\n# END replctl store\nlocal all all peer\n',
    )
  })

  test('twice in the file becomes once', () => {
    expect(ensureManagedBlock(`${block}a\n${block}b\n`, lines, 'shop')).toBe(`${block}a\nb\n`)
  })

  test('without its end takes nothing of what follows with it', () => {
    const text = '# BEGIN replctl shop\nhost all all all md5\n'
    expect(ensureManagedBlock(text, lines, 'shop')).toBe(block + text)
    expect(removeManagedBlock(block + text)).toBe(text)
    expect(readManagedBlock(text)).toBeUndefined()
  })
})
