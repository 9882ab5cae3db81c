import { expect, test } from 'vitest'
import { spreadPoints } from '../../reliability/kill-points.ts'
import { seededRandom } from '../../reliability/random.ts'

test('the same seed gives the same numbers, another one gives others', () => {
  const draw = (seed: number) => {
    const random = seededRandom(seed)
    return Array.from({ length: 20 }, () => random.between(1, 1000))
  }
  expect(draw(7)).toEqual(draw(7))
  expect(draw(7)).not.toEqual(draw(8))
})

test('numbers stay in their bounds, and reach both of them', () => {
  const random = seededRandom(1)
  const drawn = new Set(Array.from({ length: 500 }, () => random.between(3, 5)))
  expect([...drawn].toSorted()).toEqual([3, 4, 5])
  expect(() => random.pick([])).toThrow(RangeError)
})

test('points are spread over the whole way, each once; no more than there are', () => {
  const at = (total: number, count: number, shift = 0) =>
    spreadPoints('command', total, count, shift).map(({ n }) => n)
  expect(at(10, 5)).toEqual([1, 3, 5, 7, 9])
  expect(at(3, 10)).toEqual([1, 2, 3])
  expect(at(100, 4, 0.5)).toEqual([13, 38, 63, 88])
})
