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
  examples: ['replctl backup list', 'replctl backup list --json | jq -r ".result.backups[-1].id"'],
  options: [],
  onlyLooks: true,
  load: () => import('../runs/backup-list.ts'),
}

export const backupVerify: CommandSpec = {
  name: 'backup verify',
  args: [{ syntax: '[id]', summary: 'which backup (default: all)' }],
  summary: 'read every byte of the backups in the archive, and look at the WAL that they need',
  description: `When a backup was taken, its content was compared with its manifest, and the stored files were hashed. Here they are
hashed again on the archive host: any damage, a missing and an extra file is found and named. Of the WAL in the archive the
headers are read, and gaps named. What is found stays known to "backup list" and "restore". Exit code 9 if anything is wrong.`,
  examples: ['replctl backup verify', 'replctl backup verify 20261126T061500Z --json'],
  options: [],
  onlyLooks: true,
  load: () => import('../runs/backup-verify.ts'),
}

export const backupExpire: CommandSpec = {
  name: 'backup expire',
  args: [],
  summary: 'remove backups past retention, and the WAL that none of the others needs',
  description: `Both rules together keep what either of them keeps. Only good backups count; the last good full one is always kept, and what an
incremental one builds on. --keep-days D keeps every moment of the last D days restorable, so also the backup before them. WAL is
removed on every timeline up to the first segment that a kept backup needs; history files stay.`,
  examples: ['replctl backup expire --keep-full 2 --dry-run', 'replctl backup expire --keep-days 14'],
  options: [
    {
      flags: '--keep-full <n>',
      summary: 'keep the newest N full backups of the cluster’s timeline, and what builds on them',
    },
    { flags: '--keep-days <d>', summary: 'keep what it takes to restore any moment of the last D days' },
  ],
  load: () => import('../runs/backup-expire.ts'),
}
