import { expect, test } from 'vitest'
import type { NodeFacts, NodeMark } from '../../../src/cluster/facts.ts'
import { refusalOfUnknownMember } from '../../../src/cluster/judge-unknown-member.ts'
import { connection, observed, recordOf, runningNode, standbyNode } from '../some-cluster.ts'

const record = recordOf('pg1', ['pg1', 'pg2', 'pg3'])
const refusal = (survey: readonly NodeFacts[]) => {
  const { inventory, topology } = observed(survey)
  return refusalOfUnknownMember(inventory, topology)
}
const primary = (...members: string[]) =>
  runningNode('pg1', { replication: members.map((name) => connection(name)) }, { record })
const pg2 = (changes: Partial<NodeFacts> = {}) => standbyNode('pg2', '0/3000000', {}, { record, ...changes })

test('a member that receives and that the inventory lacks is not left out in silence', () => {
  const refused = refusal([primary('pg2', 'pg3'), pg2()])
  expect(refused).toMatchObject({ code: 'orphan-standby', node: 'pg1' })
  expect(refused?.message).toBe('pg3 belongs to the cluster, and the inventory lacks it')
  expect(refused?.hint).toContain('replctl remove-standby pg3')
})

test('one that is gone for good is in nobody’s way, nor one that is a member no more', () => {
  expect(refusal([primary('pg2'), pg2()])).toBeNull()
  expect(refusal([primary('pg2', 'pg9'), pg2()])).toBeNull()
  expect(refusal([primary('pg2', 'pg3'), pg2(), standbyNode('pg3', '0/3000000')])).toBeNull()
})

test('a node that was given another name is known by its mark', () => {
  const mark: NodeMark = {
    ...{
      cluster: 'shop',
      node: 'pg3',
      dataDirectory: '/data',
      systemIdentifier: '1',
      inode: '7',
      phase: 'done',
    },
  }
  expect(refusal([primary('pg2', 'pg3'), pg2(), standbyNode('db3', '0/3000000', {}, { mark })])).toBeNull()
})
