import { expect, test } from 'vitest'
import type { NodeFacts, NodeMark } from '../../../src/cluster/facts.ts'
import { refusalOfRoleChange } from '../../../src/cluster/judge-role-change.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { foreign, observed, runningNode, setting, standbyNode } from '../some-cluster.ts'

const standby = (name: string, user: string, phase: NodeMark['phase'] = 'done'): NodeFacts =>
  standbyNode(
    name,
    '0/1',
    { settings: { primary_conninfo: setting(`host=10.0.0.11 user=${user}`) } },
    { mark: { phase } as NodeMark },
  )
const judge = (standbys: readonly NodeFacts[], rendered: readonly string[] = []) => {
  const { inventory, topology } = observed([runningNode('pg1', {}), ...standbys], {}, { user: 'repl2' })
  return refusalOfRoleChange(inventory, topology, rendered.map(nodeName))
}

test('another replication.user is refused while standbys that were built would be locked out by it', () => {
  const both = [standby('pg2', 'replicator'), standby('pg3', 'replicator')]
  expect(judge(both)).toMatchObject({ code: 'replication-login-failed', node: 'pg2' })
  expect(judge(both, ['pg2'])).toMatchObject({ node: 'pg3' })
  expect(judge(both, ['pg2'])?.hint).toContain('replctl add-standby pg2 pg3')
  expect(judge(both, ['pg2', 'pg3'])).toBeNull()
})

test('in a failover the hint is the way that there is without a primary', () => {
  const { inventory, topology } = observed(
    [standby('pg2', 'replicator'), standby('pg3', 'replicator')],
    {},
    { user: 'repl2' },
  )
  const refusal = refusalOfRoleChange(inventory, topology, [nodeName('pg2')], { isFailover: true })
  expect(refusal).toMatchObject({ code: 'replication-login-failed', node: 'pg3' })
  expect(refusal?.hint).toContain('Set replication.user back to "replicator" and run promote again')
})

test('who logs in as it already, or was never ours, is in nobody’s way', () => {
  expect(judge([standby('pg2', 'repl2')])).toBeNull()
  // A standby of an adopted primary, not yet taken in.
  const untaken = { ...standby('pg2', 'their_own'), mark: null }
  expect(judge([untaken])).toBeNull()
  expect(judge([standbyNode('pg2', '0/1')])).toBeNull()
  const another = standby('pg2', 'their_own')
  const instance = { ...another.instance!, systemIdentifier: foreign }
  expect(judge([{ ...another, instance }])).toBeNull()
})
