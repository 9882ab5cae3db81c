import { describe, expect, test } from 'vitest'
import { scramVerifier } from '../../../src/postgres/scram.ts'
import { jsonFixture, majorsWith } from './fixture.ts'

interface Captured {
  readonly password: string
  readonly verifier: string
}

describe.each(majorsWith('scram.json'))('the verifier PostgreSQL %i keeps', (major) => {
  test.each(jsonFixture<Captured[]>(`pg${major}/scram.json`))('of $password', ({ password, verifier }) => {
    const [, iterations, salt] = /^SCRAM-SHA-256\$(\d+):([^$]+)\$/.exec(verifier)!
    expect(scramVerifier(password, Buffer.from(salt!, 'base64'), Number(iterations))).toBe(verifier)
  })
})

test('4096 iterations unless told otherwise', () => {
  expect(scramVerifier('pencil', new Uint8Array(16))).toMatch(
    /^SCRAM-SHA-256\$4096:AAAAAAAAAAAAAAAAAAAAAA==\$/,
  )
})
