import { describe } from 'vitest'
import { hostsAvailable } from './hosts-available.ts'

/** `describe` for tests that need hosts in namespaces. Where there can be none, they are skipped and their name says why. */
export function describeOnHosts(name: string, tests: () => void): void {
  const available = hostsAvailable()
  if (available.kind === 'namespaces') describe(name, tests)
  else describe.skip(`${name} [needs test hosts in namespaces: ${available.reason}]`, tests)
}

/** `describe` for tests that make do with an sshd on the loopback interface. */
export function describeOnAnyHosts(name: string, tests: () => void): void {
  const available = hostsAvailable()
  if (available.kind !== 'none') describe(name, tests)
  else describe.skip(`${name} [needs test hosts: ${available.reason}]`, tests)
}
