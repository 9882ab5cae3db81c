import { expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import { startsUnfenced } from '../../../src/cluster/starts-unfenced.ts'
import { recordOf } from '../some-cluster.ts'

const names = (...of: string[]) => of.map(nodeName)
const three = names('pg1', 'pg2', 'pg3')
const guarded = recordOf('pg1', three, { isPrimaryGuarded: true })
const warned = (informed: readonly string[], members = three, record = guarded) =>
  startsUnfenced(nodeName('pg1'), nodeName('pg2'), { record, members, informed: names(...informed) })

test('an old primary that could not be reached comes up as it was where no start guard is known', () => {
  for (const record of [recordOf('pg1', three), recordOf('pg3', three, { isPrimaryGuarded: true })]) {
    expect(warned(['pg2', 'pg3'], three, record)).toMatchObject({
      code: 'start-guard-missing',
      node: 'pg1',
      detail: expect.stringContaining('could not be fenced'),
    })
  }
})

test('its start guard asks the others, where at least half of the members know of the new primary', () => {
  expect(warned(['pg2', 'pg3'])).toBe(null)
  expect(warned(['pg2'], names('pg1', 'pg2'))).toBe(null)
  expect(warned(['pg2', 'pg3'], names('pg1', 'pg2', 'pg3', 'pg4'))).toBe(null)
})

test('where fewer know of it, those who do not may let it start', () => {
  expect(warned(['pg2'])?.detail).toContain('only 1 of 3 members')
  expect(warned(['pg2', 'pg9'])?.detail).toContain('only 1 of 3 members')
})

test('one where nothing can be written comes up as it was once it can', () => {
  const known = { record: recordOf('pg1', three), members: three, informed: names('pg2', 'pg3') }
  expect(startsUnfenced(nodeName('pg1'), nodeName('pg2'), { ...known, isUnwritable: true })).toMatchObject({
    message: 'nothing keeps pg1 from coming up read-write when its data directory can be written again',
    detail: expect.stringMatching(/^Nothing can be written there, so it could not be fenced/),
    hint: expect.stringContaining('"replctl promote pg2" fences it'),
  })
})
