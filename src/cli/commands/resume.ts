import type { CommandSpec } from '../command-spec.ts'

export const resume: CommandSpec = {
  name: 'resume',
  args: [],
  summary: 'finish an operation that stopped part-way, from any control host',
  description: `The journal of an operation lies on the nodes. This reads it and runs the same operation again: what is done is found done,
the rest is carried out.`,
  examples: ['replctl resume', 'replctl resume --dry-run'],
  options: [],
  load: () => import('../runs/resume.ts'),
}

export const abort: CommandSpec = {
  name: 'abort',
  args: [],
  summary: 'take an operation back that stopped part-way, where that is possible',
  description: `Undoes, in reverse, the steps that an unfinished operation began. Past its point of no return an operation only goes
forward: use "replctl resume".`,
  examples: ['replctl abort'],
  options: [],
  load: () => import('../runs/abort.ts'),
}
