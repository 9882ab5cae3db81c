import type { CommandSpec } from '../command-spec.ts'

export const removeStandby: CommandSpec = {
  name: 'remove-standby',
  args: [{ syntax: '<node>', summary: 'standby to take out, also a dead one' }],
  summary: 'take a standby out: its slot, its place among synchronous standbys, its passfile',
  description: `Writes no longer wait for the standby, its slot no longer holds WAL back, and where its host answers it is stopped and its
passfile removed. Its data stays unless --purge is given, which deletes a stopped standby's directory, with
its part of tablespaces, its WAL on another disk and what was set aside for it, and nothing else.`,
  examples: ['replctl remove-standby pg3', 'replctl remove-standby pg3 --purge'],
  options: [{ flags: '--purge', summary: 'delete its data directory' }],
  load: () => import('../runs/remove-standby.ts'),
}
