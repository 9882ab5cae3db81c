import type { CommandSpec } from '../command-spec.ts'

export const status: CommandSpec = {
  name: 'status',
  args: [],
  summary: 'the cluster as observed now: who leads, who follows whom, how far behind',
  description: `Looks at all nodes at the same time and changes nothing. Exit code 9 when a node is not what the inventory wants it to be;
each problem comes with the command that mends it.`,
  examples: ['replctl status', 'replctl status --json'],
  options: [],
  onlyLooks: true,
  load: () => import('../runs/begin-status.ts'),
}
