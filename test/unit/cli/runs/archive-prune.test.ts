import { expect, test } from 'vitest'
import { requireSegmentSize } from '../../../../src/cli/runs/archive-prune.ts'
import { runningNode, setting, unreachableNode } from '../../some-cluster.ts'

const nobody = [unreachableNode('pg1')]
const server = [runningNode('pg1', { settings: { wal_segment_size: setting(String(64 * 2 ** 20)) } })]

test('WAL is not removed by a guess how large a segment is', () => {
  expect(requireSegmentSize({ segmentSizeBytes: 2 ** 20, files: 9 }, server)).toBe(2 ** 20)
  expect(requireSegmentSize({ segmentSizeBytes: null, files: 9 }, server)).toBe(64 * 2 ** 20)
  expect(() => requireSegmentSize({ segmentSizeBytes: null, files: 9 }, nobody)).toThrowError(
    expect.objectContaining({ code: 'archive-failing' }),
  )
  // There is nothing to remove.
  expect(requireSegmentSize({ segmentSizeBytes: null, files: 0 }, nobody)).toBe(16 * 2 ** 20)
})
