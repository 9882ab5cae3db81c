import { rmSync, writeFileSync } from 'node:fs'
import { exec } from './machine.ts'

/** Users made for one test file, removed at its end. */
export interface TestUsers {
  /** The full name of a user, e.g. `rc4711admin`. */
  name(role: string): string
  /** `sudo: 'use_pty'`: sudo gives its commands a terminal of their own, as newer versions do by default. */
  add(role: string, options?: { shell?: string; sudo?: boolean | 'use_pty' }): string
  home(role: string): string
  removeAll(): void
}

/** Makes users with names no one else uses. Needs root. */
export function createTestUsers(): TestUsers {
  const prefix = `rc${process.pid % 100_000}${String.fromCharCode(97 + Math.floor(Math.random() * 26))}`
  const made: string[] = []
  const name = (role: string): string => `${prefix}${role}`
  return {
    name,
    home: (role) => `/home/${name(role)}`,
    add: (role, { shell = '/bin/bash', sudo = false } = {}) => {
      const user = name(role)
      // useradd gives up when another test file holds the lock of /etc/passwd.
      locked(['useradd', '--create-home', '--shell', shell, '--password', '*', user])
      made.push(user)
      const terminal = `Defaults:${user} ${sudo === 'use_pty' ? '' : '!'}use_pty`
      const rights = `${terminal}\n${user} ALL=(ALL) NOPASSWD: ALL\n`
      if (sudo) writeFileSync(`/etc/sudoers.d/${user}`, rights, { mode: 0o440 })
      return user
    },
    removeAll: () => {
      for (const user of made.splice(0)) {
        rmSync(`/etc/sudoers.d/${user}`, { force: true })
        try {
          locked(['userdel', '--force', '--remove', user])
        } catch (error) {
          console.warn(`could not remove user ${user}: ${String(error)}`)
        }
      }
    },
  }
}

function locked(command: readonly string[]): void {
  exec('flock', ['/tmp/.conformance-users.lock', ...command])
}
