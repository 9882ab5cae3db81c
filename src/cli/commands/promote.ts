import type { CommandSpec } from '../command-spec.ts'

export const promote: CommandSpec = {
  name: 'promote',
  args: [{ syntax: '[node]', summary: 'standby to promote (default: the best candidate)' }],
  summary: 'failover: make a standby the primary, fence the old one, re-point the others',
  description: `For a primary that is lost. The candidate is the standby that received most WAL; among equals the larger priority wins. The
old primary is first proved unable to write: stopped and fenced where its host answers over SSH, else by fence.command of
the inventory; while it shows any sign of life, promote refuses.

The promotion itself is the point of no return. Right before it, slots on the new primary begin to keep WAL for the others, also for
those that are away. The other standbys and a checkpoint come after it, while writes are possible again; if that part is
interrupted, "replctl resume" (or the same command) finishes it.`,
  examples: [
    'replctl promote',
    'replctl promote pg2',
    'replctl promote pg2 --method trigger-file',
    'replctl promote --dry-run',
  ],
  options: [
    {
      flags: '--method <method>',
      summary:
        'how to promote: auto (the best of the version), trigger-file (11 to 15), pg_promote (12 and newer)',
      choices: ['auto', 'trigger-file', 'pg_promote'],
    },
    { flags: '--allow-data-loss', summary: 'go on although another node has, or may have, more WAL' },
    {
      flags: '--allow-split-brain',
      summary:
        'go on although the old primary can neither be proved stopped nor fenced; never against signs of life',
    },
  ],
  load: () => import('../runs/begin-promotion.ts'),
}
