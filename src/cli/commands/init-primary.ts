import type { CommandSpec } from '../command-spec.ts'

export const initPrimary: CommandSpec = {
  name: 'init primary',
  args: [{ syntax: '[node]', summary: 'node of the inventory (default: the first)' }],
  summary: 'make a node the primary: initdb, render, start',
  description: `Initialises an empty data directory with checksums, UTF-8 and a locale that is the same on every node, renders
replctl.conf and its block in pg_hba.conf, starts PostgreSQL and makes the replication role. Every step can be repeated: a
run that was killed is finished by the same command or by "replctl resume", or taken back by "replctl abort".

With --adopt a running or stopped instance that replctl did not make is taken over. Its data and its own configuration
stay; what has to change is shown first, and a restart, where one is needed, happens only after a yes or --yes. Whom its commits
wait for stays until standbys are added (with replication.mode async it is given up, after a yes or --yes). It is refused where a
replication slot keeps more WAL than replication.max_slot_wal_keep_size would allow.`,
  examples: [
    'replctl init primary',
    'replctl init primary pg1 --dry-run',
    'replctl init primary pg1 --adopt --yes',
  ],
  options: [
    { flags: '--adopt', summary: 'take over an instance that replctl did not make, its data untouched' },
  ],
  load: () => import('../runs/init-primary.ts'),
}
