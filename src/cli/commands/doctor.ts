import type { CommandSpec } from '../command-spec.ts'

export const doctor: CommandSpec = {
  name: 'doctor',
  args: [{ syntax: '[node...]', summary: 'nodes to look at (default: all)' }],
  summary: 'try every precondition for real: SSH, sudo, programs, versions, locales, disk, clocks, logins',
  description: `Logs in to each node, finds its PostgreSQL, compares versions, locales and clocks, looks at disk space and ports, and
tries a replication login from each standby's host to the primary and back. It changes nothing. Exit code 9 when something
would be in the way.`,
  examples: ['replctl doctor', 'replctl doctor pg2 pg3'],
  options: [],
  onlyLooks: true,
  load: () => import('../runs/doctor.ts'),
}
