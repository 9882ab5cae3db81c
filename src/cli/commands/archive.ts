import type { CommandSpec } from '../command-spec.ts'

export const archiveCheck: CommandSpec = {
  name: 'archive check',
  args: [],
  summary: 'is every WAL segment in the archive, whole, and restorable',
  description: `Reads the archive on its own host: names, sizes and the header of every segment (of compressed ones: of the newest 1000),
history files, and what the primary says it has archived. Told are gaps on the way to the primary's timeline, empty, damaged
and foreign segments, two copies that differ, and what killed pushes left. --deep unpacks every segment to its end.

Exit code 9 when anything is missing or damaged.`,
  examples: ['replctl archive check', 'replctl archive check --deep --json'],
  options: [{ flags: '--deep', summary: 'unpack every segment to its end' }],
  onlyLooks: true,
  load: () => import('../runs/archive-check.ts'),
}

export const archiveStatus: CommandSpec = {
  name: 'archive status',
  args: [],
  summary: "the archive's lag, last failure, size, and time until its disk is full",
  description: `Shows how far the archive is behind the primary in segments, bytes and seconds, why archiving failed last, in the words of the
archive host, and how fast the archive grows. Exit code 9 when archiving fails or the disk is full: PostgreSQL keeps its WAL
meanwhile and catches up by itself.`,
  examples: ['replctl archive status', 'replctl archive status --json'],
  options: [],
  onlyLooks: true,
  load: () => import('../runs/archive-status.ts'),
}

export const archivePrune: CommandSpec = {
  name: 'archive prune',
  args: [],
  summary: 'remove WAL that no backup needs',
  description: `Removes segments that lie wholly before an LSN, or before the start of a backup, on every timeline; history files stay. Without
--keep-from it keeps everything from the start of the oldest backup on. Refused where that would take WAL from a backup
that is there. Removed are the oldest first. "replctl backup expire" does the same when it removes backups.`,
  examples: ['replctl archive prune --dry-run', 'replctl archive prune --keep-from 2/A8000000'],
  options: [
    {
      flags: '--keep-from <lsn|backup>',
      summary: 'keep WAL from here on (default: the start of the oldest backup)',
    },
  ],
  load: () => import('../runs/archive-prune.ts'),
}
