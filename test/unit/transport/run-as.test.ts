import { describe, expect, test } from 'vitest'
import { chooseElevation, commandNotBegun, type LoginIdentity } from '../../../src/transport/run-as.ts'

const login = (loginUser: string, osUser = 'postgres'): LoginIdentity => ({
  loginUser,
  isRoot: loginUser === 'root',
  osUser,
})

describe('who a command runs as', () => {
  test.each([
    ['postgres', 'os-user', 'none', 'postgres'],
    ['postgres', 'login', 'none', 'postgres'],
    ['postgres', 'root', 'sudo', 'root'],
    ['root', 'os-user', 'runuser', 'postgres'],
    ['root', 'login', 'none', 'root'],
    ['root', 'root', 'none', 'root'],
    ['admin', 'os-user', 'sudo', 'postgres'],
    ['admin', 'login', 'none', 'admin'],
    ['admin', 'root', 'sudo', 'root'],
  ] as const)('logged in as %s, for %s: %s to %s', (user, runAs, by, to) => {
    expect(chooseElevation(login(user), runAs)).toEqual({ by, user: to, isOsUser: to === 'postgres' })
  })

  test('a user with another name and uid 0 is root', () => {
    expect(chooseElevation({ loginUser: 'toor', isRoot: true, osUser: 'postgres' }, 'root')).toMatchObject({
      by: 'none',
    })
  })
})

describe('a command that never began', () => {
  const refusal = (user: string, noise: string, status: number | null = 1) => {
    const identity = login(user)
    const start = { host: 'db1', title: 'pg_controldata', status, noise }
    return commandNotBegun(identity, chooseElevation(identity, 'os-user'), start)
  }

  test('for want of sudo rights names the line that gives them', () => {
    const error = refusal('admin', 'Welcome\nsudo: a password is required\n')
    expect(error).toMatchObject({
      code: 'sudo-refused',
      exitCode: 4,
      message: 'login "admin" on db1 cannot run commands as "postgres"',
      detail: 'pg_controldata was not started. It said: Welcome | sudo: a password is required',
      hint: 'Add this line with visudo: admin ALL=(ALL) NOPASSWD: ALL',
    })
  })

  test.each([
    ['/bin/sh: 1: exec: sudo: not found', /Install sudo/],
    ['sudo: unknown user postgres', /Create the user "postgres"/],
    ['sudo: sorry, you must have a tty to run sudo', /Defaults:admin !requiretty/],
  ])('%s', (noise, hint) => {
    expect(refusal('admin', noise, 127).hint).toMatch(hint)
  })

  test('by root for want of the user says so', () => {
    expect(refusal('root', 'runuser: user postgres does not exist').hint).toMatch(
      /Create the user "postgres"/,
    )
  })

  test('for want of a shell is a refused login', () => {
    expect(refusal('postgres', 'This account is currently not available.')).toMatchObject({
      code: 'auth-refused',
      detail: expect.stringContaining('This account is currently not available.'),
    })
    expect(refusal('postgres', '', null).detail).toMatch(/It was killed and said nothing/)
  })

  test('floods no terminal', () => {
    expect(refusal('postgres', 'noise\n'.repeat(10_000)).detail!.length).toBeLessThan(700)
  })
})
