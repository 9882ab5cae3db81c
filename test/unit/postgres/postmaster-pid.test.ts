import { describe, expect, test } from 'vitest'
import { parsePostmasterPid } from '../../../src/postgres/postmaster-pid.ts'
import { fixture, majorsWith } from './fixture.ts'

describe.each(majorsWith('postmaster-standby.pid'))('postmaster.pid of PostgreSQL %i', (major) => {
  test.each([
    ['primary', 5432],
    ['standby', 5433],
  ])('of a running %s', (role, port) => {
    const text = fixture(`pg${major}/postmaster-${role}.pid`)
    expect(parsePostmasterPid(text)).toEqual({
      pid: Number(text.split('\n')[0]),
      dataDirectory: `/tmp/replctl-capture/${role}`,
      startedAtEpoch: expect.closeTo(1_795_000_000, -7),
      port,
      socketDirectory: '/tmp/replctl-capture',
      listenAddress: undefined,
      // A hot standby that accepts connections is "ready" like a primary.
      status: 'ready',
    })
  })
})

test('a postmaster that has only begun to write it', () => {
  const [pid, directory] = fixture('pg15/postmaster-primary.pid').split('\n')
  expect(parsePostmasterPid(`${pid}\n${directory}\n`)).toMatchObject({
    pid: Number(pid),
    dataDirectory: directory,
    port: undefined,
    socketDirectory: undefined,
    status: undefined,
  })
})

test.each(['', '\n', 'garbage\n/data\n', '123'])('%j tells nothing', (text) => {
  expect(parsePostmasterPid(text)).toBeUndefined()
})

test('a stand-alone backend holds the data directory, too', () => {
  expect(parsePostmasterPid('-4711\n/data\n')).toMatchObject({ pid: 4711, dataDirectory: '/data' })
})
