import { expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import { readGuardAnswers } from '../../../src/node/start-guard.ts'

test('what the start guard heard of each member is told apart', () => {
  const said = 'pg2 is a standby on timeline 38, pg3.example is a primary on timeline 12, pg4 does not answer'
  expect(readGuardAnswers(nodeName('pg1'), said)).toMatchObject([
    { from: 'pg1', at: 'pg2', role: 'standby', timeline: 38 },
    { from: 'pg1', at: 'pg3.example', role: 'primary', timeline: 12 },
  ])
  expect(readGuardAnswers(nodeName('pg1'), '')).toEqual([])
})
