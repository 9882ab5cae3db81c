import type { CommandSpec } from '../command-spec.ts'

export const newCluster: CommandSpec = {
  name: 'new',
  args: [{ syntax: '<cluster>', summary: 'name of the cluster' }],
  summary: 'write a commented replctl.yaml to start from',
  description: 'Writes to --config, else to ./replctl.yaml. An existing file is never overwritten.',
  examples: ['replctl new shop --hosts 10.0.0.11,10.0.0.12,10.0.0.13'],
  options: [
    { flags: '--hosts <hosts>', summary: 'comma-separated hosts, the first one for the primary' },
    {
      flags: '--postgres-version <major>',
      summary: 'major version of PostgreSQL, for the data directory (default: 15)',
    },
  ],
  readsNoInventory: true,
  load: () => import('../runs/new.ts'),
}

export const schema: CommandSpec = {
  name: 'schema',
  args: [],
  summary: 'print the JSON Schema of replctl.yaml',
  description: 'For editors: they complete and check replctl.yaml with it.',
  examples: ['replctl schema > replctl.schema.json'],
  options: [],
  isRaw: true,
  readsNoInventory: true,
  load: () => import('../runs/schema.ts'),
}
