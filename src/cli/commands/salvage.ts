import type { CommandSpec } from '../command-spec.ts'

export const salvage: CommandSpec = {
  name: 'salvage',
  args: [{ syntax: '<node>', summary: 'a stopped or fenced node whose WAL has left that of the primary' }],
  summary: 'write out what only a former primary (or a diverged standby) has: rows, statements, WAL',
  description: `For a node that holds transactions which the primary lacks: those that were confirmed and not yet sent when it failed. What
they inserted, changed and deleted is written on that node, into salvage/ of replctl's state directory there: rows.jsonl (one
change a line), salvage.sql (to be reviewed and applied to the primary; what that has changed as well is commented out and
marked CONFLICT), transactions.jsonl, and the WAL from the fork on. Nothing is applied, and nothing is discarded.

The node is read in isolation: as a standby of nobody, on a socket in a private folder, without TCP. "replctl rejoin" does
the same by itself before it discards anything. Where not all could be saved, what is missing is named, and the exit code is 6;
run again, it tries anew.`,
  examples: ['replctl salvage pg1', 'replctl salvage pg1 --json'],
  options: [],
  load: () => import('../runs/salvage.ts'),
}
