import type { CommandSpec } from '../command-spec.ts'

export const rejoin: CommandSpec = {
  name: 'rejoin',
  args: [{ syntax: '<node>', summary: 'former primary, or standby, that is to come back' }],
  summary: 'bring a former or diverged member back as a standby; first saves what only it had',
  description: `The cheapest way that is safe, with its reason:
  none      it is a standby already
  follow    it holds nothing that the primary lacks: it is started as a standby, or pointed at its upstream
  rewind    it has WAL of its own: pg_rewind takes it back to the fork
  reclone   it cannot be rewound, or the WAL it needs is gone: it is cloned anew; the old data directory is moved aside

Before anything of its own is discarded, what only this node had is written out into its state directory (salvage). Where that
cannot be done rejoin refuses, unless --allow-data-loss is given.

A node that answers as a primary beside the new one is stopped and fenced first, if the record of the cluster and a higher
timeline both say that the other one took over. A crashed one is recovered without network and without ever being writable.
The node's own configuration, keys and certificates survive.

The point of no return is the rewind: stopped in it, the data directory cannot be started until the same command (or
"replctl resume") has finished it. A clone can be taken back until it streams.`,
  examples: ['replctl rejoin pg1', 'replctl rejoin pg1 --dry-run', 'replctl rejoin pg1 --reclone'],
  options: [
    { flags: '--reclone', summary: 'clone it anew, also where it could follow or be rewound' },
    { flags: '--allow-data-loss', summary: 'go on although what only this node has cannot be written out' },
  ],
  load: () => import('../runs/rejoin.ts'),
}
