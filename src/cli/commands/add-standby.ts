import type { CommandSpec } from '../command-spec.ts'

export const addStandby: CommandSpec = {
  name: 'add-standby',
  args: [{ syntax: '<node...>', summary: 'nodes of the inventory' }],
  summary: 'clone standbys by pg_basebackup, several at once, and wait until they stream',
  description: `All preconditions of all nodes are tried first. Then each node is cloned by pg_basebackup, run on the new standby, so
that nothing flows through this machine; its settings are rendered, it is started, and replctl waits until it streams.

The primary keeps serving; its only changes are the replication role, lines in pg_hba.conf and a slot for each standby. A
copy that was interrupted is found again by the same command. A directory that is not replctl's is never touched.`,
  examples: [
    'replctl add-standby pg2 pg3',
    'replctl add-standby pg4 --from pg2',
    'replctl add-standby pg2 --reclone',
  ],
  options: [
    {
      flags: '--from <node>',
      summary: 'clone from this standby, or let one that is built catch up from it, instead of the upstream',
    },
    {
      flags: '--reclone',
      summary: 'replace a standby of this same cluster; its old directory is kept until the new one streams',
    },
  ],
  load: () => import('../runs/add-standby.ts'),
}
