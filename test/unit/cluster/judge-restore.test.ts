import { describe, expect, it } from 'vitest'
import { chooseBackupSource } from '../../../src/cluster/choose-backup-source.ts'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { judgeRestore } from '../../../src/cluster/judge-restore.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import {
  connection,
  control,
  emptyNode,
  lsn,
  observed,
  postmaster,
  receivesFrom,
  recordOf,
  runningNode,
  standbyNode,
  stoppedNode,
  unreachableNode,
} from '../some-cluster.ts'

const ledByPg1 = { record: recordOf('pg1', ['pg1', 'pg2', 'pg3']) }
const alive = (name: string) => runningNode(name, { currentLsn: lsn('0/5000148') })

function judge(survey: readonly NodeFacts[], node = 'pg1', isGoingOn = false) {
  const { inventory, topology } = observed(survey)
  const settings = inventory.nodes.find((one) => one.name === node)
  if (settings === undefined) throw new RangeError(node)
  return judgeRestore(inventory, topology, settings, { isGoingOn })
}

const codeOf = (work: () => unknown): string => {
  try {
    work()
    return 'nothing'
  } catch (thrown) {
    return (thrown as { code: string }).code
  }
}

describe('a restore into a node’s own data directory', () => {
  it('is refused while a primary answers, and while one runs that does not answer', () => {
    expect(codeOf(() => judge([emptyNode('pg1'), alive('pg2')]))).toBe('primary-alive')
    const mute = stoppedNode('pg2', '0/5000000', { postmaster: postmaster(), control: control() })
    expect(codeOf(() => judge([emptyNode('pg1'), mute]))).toBe('primary-alive')
    expect(codeOf(() => judge([emptyNode('pg1'), alive('pg2'), alive('pg3')]))).toBe('two-writers')
  })

  it('goes on with its own instance, recovered and still alone; whoever could not be reached is asked for again', () => {
    const own = alive('pg1')
    expect(codeOf(() => judge([own, emptyNode('pg2')], 'pg1'))).toBe('primary-alive')
    const verdict = judge([own, unreachableNode('pg2')], 'pg1', true)
    expect(verdict.unreachable).toEqual(['pg2'])
    expect(codeOf(() => judge([own, alive('pg2')], 'pg1', true))).toBe('two-writers')
  })

  it('what it had begun, and somebody else has started, is neither gone on with nor removed', () => {
    const mark = {
      ...{ cluster: 'shop', node: nodeName('pg1'), dataDirectory: '/d', inode: '1' },
      ...{ phase: 'cloning' as const, systemIdentifier: '1' },
    }
    const started = () => judge([{ ...alive('pg1'), mark }, emptyNode('pg2')], 'pg1')
    expect(started).toThrow(/was started by somebody else/)
    expect(codeOf(started)).toBe('primary-alive')
  })

  it('needs the node itself', () => {
    expect(codeOf(() => judge([unreachableNode('pg1'), emptyNode('pg2')]))).toBe('host-unreachable')
  })

  it('a host that cannot be reached and may carry the primary has to be fenced', () => {
    const verdict = judge(
      [emptyNode('pg2', ledByPg1), unreachableNode('pg1'), emptyNode('pg3', ledByPg1)],
      'pg2',
    )
    expect(verdict.unreachable).toEqual(['pg1'])
    // Nobody knows who led: then everybody who is silent may.
    expect(judge([emptyNode('pg2'), unreachableNode('pg1')], 'pg2').unreachable).toEqual(['pg1'])
    // Where the record names another one, a silent standby is no danger.
    const known = judge([emptyNode('pg2', ledByPg1), emptyNode('pg1'), unreachableNode('pg3')], 'pg2')
    expect(known.unreachable).toEqual([])
    // Where it names the node itself, the silent one may have been promoted while that was away.
    expect(judge([emptyNode('pg1', ledByPg1), unreachableNode('pg2')]).unreachable).toEqual(['pg2'])
  })

  it('a stopped former primary is fenced, a standby is cloned anew', () => {
    const stopped = stoppedNode('pg2', '0/5000000', { control: control() })
    const standby = standbyNode('pg3', '0/5000000', { receiver: null, ...receivesFrom('10.0.0.11') })
    const verdict = judge([emptyNode('pg1', ledByPg1), stopped, standby])
    expect(verdict).toMatchObject({ toFence: ['pg2'], toReclone: ['pg2', 'pg3'], others: ['pg2', 'pg3'] })
  })
})

describe('the node that a backup copies', () => {
  const choose = (survey: readonly NodeFacts[], named?: string, nodes = {}) =>
    chooseBackupSource(observed(survey, nodes).topology, named === undefined ? undefined : nodeName(named))
  const primary = runningNode('pg1', {
    currentLsn: lsn('0/5000148'),
    replication: [connection('shop_pg2'), connection('shop_pg3')],
  })
  const standby = (name: string, changes = {}) =>
    standbyNode(name, '0/5000148', { ...receivesFrom('10.0.0.11'), ...changes })

  it('is a standby that streams and applies at once, so that the primary is spared', () => {
    expect(choose([primary, standby('pg2')])).toBe('pg2')
    expect(choose([primary, standby('pg2', { isReplayPaused: true })])).toBe('pg1')
    expect(choose([primary, standby('pg2')], undefined, { pg2: { delayMs: 1000 } })).toBe('pg1')
    expect(choose([primary, unreachableNode('pg2')])).toBe('pg1')
  })

  it('is the one that was named, if it runs', () => {
    expect(choose([primary, standby('pg2')], 'pg1')).toBe('pg1')
    expect(codeOf(() => choose([primary, stoppedNode('pg2', '0/1')], 'pg2'))).toBe('instance-stopped')
    expect(codeOf(() => choose([primary, unreachableNode('pg2')], 'pg2'))).toBe('host-unreachable')
  })

  it('without a primary has to be named', () => {
    expect(codeOf(() => choose([unreachableNode('pg1'), standby('pg2')]))).toBe('no-primary')
    const said = (survey: readonly NodeFacts[]) => {
      try {
        return choose(survey)
      } catch (thrown) {
        return (thrown as { detail: string }).detail
      }
    }
    expect(said([unreachableNode('pg1'), standby('pg2')])).toMatch(
      /^No node accepts writes; pg1 cannot be asked\./,
    )
    expect(said([stoppedNode('pg1', '0/1'), standby('pg2')])).toMatch(/^No node accepts writes\. A backup/)
    expect(choose([unreachableNode('pg1'), standby('pg2')], 'pg2')).toBe('pg2')
  })
})
