import type { CommandSpec } from '../command-spec.ts'

export const backup: CommandSpec = {
  name: 'backup',
  args: [],
  summary: 'take a base backup into the archive, and prove it',
  description: `pg_basebackup runs on the archive host, from a standby that streams (else the primary), packed by the server, so that
nothing flows through this machine. The backup is listed only when it was unpacked there, compared with its manifest by
pg_verifybackup, and when the WAL from its start to its end is in the archive. Until then it lies under another name.

A backup that fails is removed, and the exit code says so. One whose replctl was killed goes on; the same command (or "replctl
resume") finishes it, "replctl abort" removes it.`,
  examples: [
    'replctl backup',
    'replctl backup --from pg2 --label "before the upgrade"',
    'replctl backup --incremental',
  ],
  options: [
    { flags: '--from <node>', summary: 'node to copy (default: a standby that streams, else the primary)' },
    { flags: '--label <text>', summary: 'a word for people, shown by "backup list"' },
    {
      flags: '--incremental',
      summary: 'only what changed since the last good backup (PostgreSQL 17 and newer)',
    },
  ],
  load: () => import('../runs/backup.ts'),
}

export const backupList: CommandSpec = {
  name: 'backup list',
  args: [],
  summary: 'the base backups in the archive, the oldest first',
  description: `Read from the archive host's own files; the cluster itself need not run. A backup whose files have another size than they had,
that lacks one, or that "backup verify" found damaged is shown as not restorable, with the reason.`,
  examples: ['replctl backup list', 'replctl backup list --json | jq -r .result.backups[-1].id'],
  options: [],
  load: () => import('../runs/backup-list.ts'),
}
