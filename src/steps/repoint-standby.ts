import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import type { Step } from '../engine/step.ts'
import type { ClusterInput } from './cluster-input.ts'
import { ensureSettings } from './ensure-configuration.ts'
import { ensureStandbySettings } from './ensure-standby-settings.ts'

/**
 * Points a running standby at another upstream; taken back by pointing it at the former one. Where that is not known
 * (somebody emptied its settings, or its upstream has left the inventory) it stays where it was pointed at: who leads does
 * not change by it, so that nothing else has to wait for its end.
 */
export function repointStandby(
  node: NodeName,
  upstream: NodeSettings,
  former: NodeSettings | null,
  input: ClusterInput,
): Step {
  const step = ensureStandbySettings(node, upstream, input)
  if (former === null) return step
  return takenBackBy(step, ensureStandbySettings(node, former, input))
}

/** Who confirms commits from now on; taken back by waiting for those who did before. */
export function changeConfirming(
  primary: NodeName,
  input: ClusterInput,
  before: readonly NodeName[],
  after: readonly NodeName[],
): Step {
  return takenBackBy(ensureSettings(primary, input, after), ensureSettings(primary, input, before))
}

/** A step whose undo is that another one, on the same node, is applied: whoever takes it back knows how, and owes it. */
function takenBackBy(step: Step, back: Step): Step {
  const { undoEndsWithRun: _, mayBeLeftBehind: __, ...own } = step
  return {
    ...own,
    undo: async (ctx) => {
      await back.apply?.(ctx)
      await back.verify?.(ctx)
    },
  }
}
