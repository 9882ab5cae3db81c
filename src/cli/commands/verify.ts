import type { CommandSpec } from '../command-spec.ts'

export const verify: CommandSpec = {
  name: 'verify',
  args: [{ syntax: '[node...]', summary: 'standbys to look at (default: all)' }],
  summary: 'prove replication: a row written on the primary is read back on every standby',
  description: `Writes a row with a fresh token into a test table in the schema "replctl" and shows, for every standby, the time until
that row is read there by SQL. Also checked: the upstream, the timeline, paused replay, slots, and the archive where there is
one (a segment is switched, awaited and read back). The row, and the table with the last row, are removed again.
Where a publication FOR ALL TABLES would carry the row to logical subscribers, a view of that schema takes the table's place: it
reaches the standbys in the same WAL, and no subscriber.

Exit code 9 when anything is wrong. Several verifies may run at once.`,
  examples: ['replctl verify', 'replctl verify pg2 --json', 'replctl verify --junit report.xml'],
  options: [{ flags: '--junit <file>', summary: 'also write the result as JUnit XML' }],
  load: () => import('../runs/verify.ts'),
}
