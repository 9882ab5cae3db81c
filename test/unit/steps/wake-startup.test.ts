import { expect, test } from 'vitest'
import { wakeAgainAfter } from '../../../src/steps/wake-startup.ts'

/** Wakes until a startup process is done after so long. */
function wakesWithin(ms: number): number {
  let wakes = 0
  for (let waited = 0; waited < ms; waited += wakeAgainAfter(waited)) wakes += 1
  return wakes
}

test('a promotion that is ready soon is woken at once, one that takes a minute does not flood the log', () => {
  expect(wakesWithin(200)).toBe(20)
  expect(wakesWithin(60_000)).toBeLessThan(150)
  // And is never left asleep for much longer than it took anyway.
  for (const waited of [300, 5_000, 60_000]) expect(wakeAgainAfter(waited)).toBeLessThanOrEqual(waited / 10)
})
