import { expect, test } from 'vitest'
import { patienceFor } from '../../../src/transport/ssh-connection.ts'

test.each([1, 8, 50, 100, 200, 1000])(
  '%d hosts that do not answer are all dialled within some 3 s',
  (hosts) => {
    const turns = Math.ceil(hosts / 8) - 1
    expect(turns * patienceFor(hosts - 8)).toBeLessThan(3_500)
  },
)

test('a few hosts have the time that a login takes', () => {
  expect(patienceFor(20)).toBe(300)
})
