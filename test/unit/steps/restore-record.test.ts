import { expect, test } from 'vitest'
import type { NodeFacts, NodeMark } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import { parseRecoveryTarget } from '../../../src/postgres/recovery-target.ts'
import { isAskedFor, isOfDirectory, type RestoreRecord } from '../../../src/steps/restore-record.ts'
import { inventoryOf, stoppedNode } from '../some-cluster.ts'

const record: RestoreRecord = {
  ...{ backup: '20261126T010000Z', timeline: 2, target: 'latest', port: 5432, phase: 'recovered' },
  ...{ reachedLsn: '0/5000000', reachedTime: null, newTimeline: 3 },
}
const isAsked = (part: { backup?: string; timeline?: number; toLsn?: string }) =>
  isAskedFor(record, {
    target: parseRecoveryTarget(part.toLsn === undefined ? {} : { toLsn: part.toLsn }),
    backup: part.backup,
    timeline: part.timeline,
  })

test('a restore that was begun is gone on with by the same command, and what that leaves open stays chosen', () => {
  expect(isAsked({})).toBe(true)
  expect(isAsked({ backup: record.backup })).toBe(true)
  expect(isAsked({ timeline: 2 })).toBe(true)
})

test('another target, backup or timeline is another restore', () => {
  expect(isAsked({ toLsn: '0/5000000' })).toBe(false)
  expect(isAsked({ backup: '20261126T020000Z' })).toBe(false)
  expect(isAsked({ timeline: 1 })).toBe(false)
  expect(isAsked({ backup: record.backup, timeline: 1 })).toBe(false)
})

test('a record speaks of its directory only until somebody else has built an instance there, or emptied what was opened', () => {
  const [settings] = inventoryOf(['pg1']).nodes
  if (settings === undefined) throw new RangeError('no node')
  const is = (phase: RestoreRecord['phase'], part: Partial<NodeFacts>, marked: NodeMark['phase']) => {
    const mark = {
      ...{ cluster: 'shop', node: nodeName('pg1'), dataDirectory: settings.postgres.dataDir, inode: '7' },
      ...{ phase: marked, systemIdentifier: '' },
    }
    const facts = stoppedNode('pg1', '0/5000000', { mark, dataDirectoryInode: '7', ...part })
    return isOfDirectory({ ...record, phase }, facts, { cluster: 'shop', settings })
  }
  expect(is('fetching', { dataDirectoryState: 'empty' }, 'cloning')).toBe(true)
  expect(is('recovered', {}, 'cloning')).toBe(true)
  expect(is('fetching', {}, 'done')).toBe(false)
  expect(is('fetched', {}, 'cloned')).toBe(false)
  expect(is('opened', {}, 'done')).toBe(true)
  expect(is('opened', { dataDirectoryState: 'empty' }, 'done')).toBe(false)
  expect(is('recovered', { dataDirectoryInode: '8' }, 'cloning')).toBe(false)
})
