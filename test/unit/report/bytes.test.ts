import { expect, test } from 'vitest'
import { formatBytes, formatDuration } from '../../../src/report/bytes.ts'

test.each([
  [0, '0 B'],
  [512, '512 B'],
  [1023, '1023 B'],
  [1024, '1.0 KiB'],
  [16 * 2 ** 20, '16 MiB'],
  [9.94 * 1024, '9.9 KiB'],
  [9.96 * 1024, '10 KiB'],
  [1023.7 * 1024, '1.0 MiB'],
  [1.2 * 2 ** 30, '1.2 GiB'],
  [5000 * 2 ** 50, '5000 PiB'],
  [-2048, '-2.0 KiB'],
])('%d bytes are %s', (bytes, expected) => {
  expect(formatBytes(bytes)).toBe(expected)
})

test.each([
  [0, '0 ms'],
  [12.4, '12 ms'],
  [99.6, '0.1 s'],
  [400, '0.4 s'],
  [6_000, '6 s'],
  [9_960, '10 s'],
  [59_600, '1 min'],
  [200_000, '3 min 20 s'],
  [3_599_900, '1 h'],
  [7_500_000, '2 h 5 min'],
  [86_399_000, '1 d'],
  [100 * 3_600_000, '4 d 4 h'],
  [-1_500, '-1.5 s'],
])('%d ms are %s', (ms, expected) => {
  expect(formatDuration(ms)).toBe(expected)
})
