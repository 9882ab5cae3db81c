import { expect, it } from 'vitest'
import { readOutcome } from '../../../src/node/try-reach.ts'

it.each([
  ['psql: error: could not translate host name "db9" to address: Name or service not known', 'unresolved'],
  [
    'psql: error: connection to server at "10.0.0.12", port 5432 failed: Connection refused Is the server running on that host and accepting TCP/IP connections?',
    'refused',
  ],
  ['psql: error: connection to server at "10.0.0.12", port 5432 failed: timeout expired', 'silent'],
  ['psql: error: connection to server at "10.0.0.12", port 5432 failed: No route to host', 'silent'],
  [
    'psql: error: connection to server at "10.0.0.12", port 5432 failed: FATAL:  no pg_hba.conf entry for host "10.0.0.11"',
    'rejected',
  ],
  [
    'psql: error: connection to server at "10.0.0.12", port 5432 failed: fe_sendauth: no password supplied',
    'rejected',
  ],
  [
    'psql: error: connection to server at "10.0.0.12", port 22 failed: received invalid response to SSL negotiation: S',
    'answers',
  ],
])('%s: %s', (said, outcome) => {
  expect(readOutcome(said, 2)).toBe(outcome)
})

it('a psql that is not there says nothing about the other node', () => {
  expect(readOutcome('sh: 1: /usr/lib/postgresql/15/bin/psql: not found', 127)).toBe('no-psql')
})
