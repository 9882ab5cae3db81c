import type { CommandSpec } from '../command-spec.ts'

export const completion: CommandSpec = {
  name: 'completion',
  args: [{ syntax: '<shell>', summary: 'bash, zsh or fish' }],
  summary: 'print the completion script of a shell',
  description:
    'Completes commands, options and the names of the nodes; those come from the inventory, never from a host.',
  examples: ['source <(replctl completion bash)', 'replctl completion fish | source'],
  options: [],
  isRaw: true,
  readsNoInventory: true,
  load: () => import('../runs/completion.ts'),
}
