import type { CommandSpec } from '../command-spec.ts'

export const switchover: CommandSpec = {
  name: 'switchover',
  args: [{ syntax: '[node]', summary: 'standby to hand over to (default: the best candidate)' }],
  summary: 'planned exchange of roles: nothing lost, undone by itself if it cannot finish',
  description: `For a primary that is well. Every precondition is tried first, and a refusal changes nothing: the candidate streams from the
primary, is at most replication.max_candidate_lag behind, replays, and may lead; the archive keeps up; the old primary can
log in at the candidate, which has walsenders, slots and disk space for it, and no setting is in the way.

Then: slots, settings and a checkpoint on both while writes go on; the primary is stopped (fast: its sessions are cut, open
transactions roll back); pg_controldata and the candidate's replay prove that nothing is missing; the candidate is promoted.
Until that promotion every failure puts the old primary back in service by itself (exit 5). It is the point of no return:
from then on "replctl resume", from any control host, finishes what is left. The other standbys follow, the old primary comes
back as a standby, and everything is read back.`,
  examples: [
    'replctl switchover',
    'replctl switchover pg2',
    'replctl switchover pg2 --dry-run',
    'replctl switchover pg2 --timeout 20s',
  ],
  options: [
    {
      flags: '--allow-unarchived',
      summary: 'go on although the archive fails or is far behind: it will have a gap',
    },
  ],
  load: () => import('../runs/switchover.ts'),
}
