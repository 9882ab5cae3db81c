import { cannotBeUndone, inOrder, type Plan } from '../engine/step.ts'
import { type ExpiryPlan, pruneWal, removeBackup } from '../steps/expire-backups.ts'

/**
 * Removes backups past retention, then the WAL that none of the others needs. Each backup is taken off the list before its
 * files go. Nothing of it can be taken back; a run that was killed is finished by the same command.
 */
export function expireBackups(
  plan: ExpiryPlan,
  remove: readonly string[],
  tell: Parameters<typeof pruneWal>[1],
): Plan {
  return inOrder([
    ...remove.map((id) => cannotBeUndone(removeBackup(plan, id))),
    cannotBeUndone(pruneWal(plan, tell)),
  ])
}
