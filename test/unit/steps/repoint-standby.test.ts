import { expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import type { ClusterInput } from '../../../src/steps/cluster-input.ts'
import { ensureSettings } from '../../../src/steps/ensure-configuration.ts'
import { changeConfirming } from '../../../src/steps/repoint-standby.ts'
import { inventoryOf } from '../some-cluster.ts'

test('whom commits wait for is owed to be put back by whoever takes it back; other settings may be left behind', () => {
  const input = { inventory: inventoryOf(['pg1', 'pg2']), templates: {} } as ClusterInput
  const [pg1, pg2] = [nodeName('pg1'), nodeName('pg2')]
  const change = changeConfirming(pg1, input, [pg2], [])
  expect(change.undo).toBeDefined()
  expect([change.mayBeLeftBehind, change.undoEndsWithRun]).toEqual([undefined, undefined])
  expect(ensureSettings(pg1, input, [])).toMatchObject({ mayBeLeftBehind: true, undoEndsWithRun: true })
})
