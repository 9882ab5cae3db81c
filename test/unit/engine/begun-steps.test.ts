import { expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import { owedByUnknown } from '../../../src/engine/begun-steps.ts'

test('what was done on a node that the inventory lacks is not left there in silence', () => {
  const journal = { command: 'promote', owed: ['pg2: make a slot', 'pg1: fence the old primary: stop it'] }
  const refusal = (...names: string[]) => owedByUnknown(journal, names.map(nodeName), '/etc/replctl.yaml')
  expect(refusal('pg1', 'pg2')).toBeNull()
  expect(refusal('pg2', 'pg3')).toMatchObject({
    code: 'cannot-abort',
    message: '"promote" cannot be taken back: pg1 took part in it, and the inventory lacks it',
    detail: '"fence the old primary: stop it" on pg1 would stay as it is.',
    hint: 'Put pg1 into /etc/replctl.yaml, then: replctl abort',
  })
  expect(owedByUnknown({ command: 'promote' }, [], '')).toBeNull()
})
