import type { CommandSpec } from '../command-spec.ts'

export const follow: CommandSpec = {
  name: 'follow',
  args: [{ syntax: '<node>', summary: 'running standby to point elsewhere' }],
  summary: 'point one standby at another upstream: the primary, or a standby (cascading)',
  description: `For a cascade whose middle node is lost, for a standby that follows the wrong node, or to take load off the primary.
Tried for real before anything is changed: a replication login from its host, that the new upstream has the WAL it needs, free
walsenders and slots, no circle, the same history. From PostgreSQL 13 on it changes over without a restart.

The inventory keeps its wish: where that says otherwise, "status" calls the node wrong-upstream until "upstream" is changed there.`,
  examples: ['replctl follow pg3 --upstream pg2', 'replctl follow pg3 --upstream pg1 --dry-run'],
  options: [{ flags: '--upstream <node>', summary: 'whom it shall receive from', isRequired: true }],
  load: () => import('../runs/follow.ts'),
}
