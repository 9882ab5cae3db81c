import type { CommandSpec } from '../command-spec.ts'

export const restore: CommandSpec = {
  name: 'restore',
  args: [
    {
      syntax: '[node]',
      summary: 'node whose host gets the restored instance (with --drill: default a standby)',
    },
  ],
  summary: 'bring a backup back: to its end, a time, an LSN, a restore point, a transaction, or the latest',
  description: `The backup goes from the archive host straight to the node and is compared with its manifest there. The instance then
recovers alone (no network, no archiving), pauses at the target, is looked at, and is opened only if the target was reached; where
that cannot be, it is not opened and the copy is removed. The line of timelines that recovery follows is chosen outright: the
primary's (where none answers, the archive's newest), unless --timeline or --backup says otherwise.

Without --data-dir: disaster recovery, into the node's own, empty data directory. Refused while a primary answers, or while one may
live on a host that cannot be reached (fence.command, or --allow-split-brain where you know that it is off). The node becomes the
primary, on a new timeline. Its start with the cluster's settings is the point of no return. Clone the other nodes anew afterwards.

With --data-dir: an instance of its own beside the cluster, on a port of its own. It archives nowhere and is no member.

With --drill: the newest backup into a scratch directory, recovered to the end of the archive, read in full (pg_amcheck where there
is one), its rows counted and compared with the primary's, removed again. For a nightly job: exit code 9 if anything is wrong.`,
  examples: [
    'replctl restore pg1 --latest',
    'replctl restore pg2 --data-dir /srv/yesterday --to-time "2026-11-25 18:00:00+01:00"',
    'replctl restore pg2 --data-dir /srv/before-drop --to-name before_migration --port 5499',
    'replctl restore --drill --json',
  ],
  options: [
    {
      flags: '--backup <id>',
      summary: 'which backup (default: the newest one that ended before the target)',
    },
    { flags: '--to-time <time>', summary: 'the last moment to restore, with its time zone' },
    { flags: '--to-lsn <lsn>', summary: 'up to this WAL position, its record included' },
    { flags: '--to-name <name>', summary: 'up to a restore point, made by pg_create_restore_point()' },
    { flags: '--to-xid <xid>', summary: 'up to this transaction, included' },
    { flags: '--to-immediate', summary: 'to the end of the backup, no further' },
    { flags: '--latest', summary: 'as far as the archive reaches (the default)' },
    {
      flags: '--timeline <n>',
      summary: 'the timeline to follow (default: the primary’s, else the newest in the archive)',
    },
    { flags: '--data-dir <dir>', summary: 'restore beside the cluster, into this empty directory' },
    { flags: '--port <port>', summary: 'its port, with --data-dir (default: a free one)' },
    {
      flags: '--allow-split-brain',
      summary: 'a host that cannot be reached and may carry the primary is known to be off',
    },
    { flags: '--drill', summary: 'restore, examine and remove the newest backup' },
  ],
  load: () => import('../runs/restore.ts'),
}
