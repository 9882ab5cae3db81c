import { expect, test } from 'vitest'
import { switchWal } from '../../../src/node/switch-wal.ts'

const size = 16 * 2 ** 20
const switched = (lsn: string, timeline = '00000001') =>
  switchWal({ json: async () => ({ lsn, timeline, size }) as never })

test('the segment that a switch has finished is the one that is awaited in the archive', async () => {
  expect(await switched('0/3000148')).toBe('000000010000000000000003')
  expect(await switched('1/FF000100', '0000000A')).toBe('0000000A00000001000000FF')
})

test('on an idle primary it is the one before: what nobody writes to is never finished, on no version', async () => {
  expect(await switched('0/4000000')).toBe('000000010000000000000003')
  expect(await switched('2/0')).toBe('0000000100000001000000FF')
})
