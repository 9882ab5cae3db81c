import type { SalvageRecord } from '../../cluster/salvage.ts'
import { asComment } from '../../postgres/salvage-sql.ts'

/** The beginning of salvage.sql: what it is, and what is to be looked at before it is applied. */
export function salvageHeader(record: SalvageRecord): string {
  const { node, forkLsn, timeline, transactions, rows, conflicts } = record
  const lines = [
    `What only ${node} had: ${rows} rows that ${transactions} transactions changed on timeline ${timeline} after ${forkLsn},`,
    'written as changes to be made on the primary. Review it, then apply it there: psql -X -f salvage.sql',
    'Each database is one transaction: all of it is applied, or nothing. Each change is made only where the row still is',
    'as it was when the timelines parted; a row that was inserted is left alone where its key is taken. What is not made,',
    'psql says: NOT DONE, with the table and the key.',
    ...(conflicts === 0
      ? []
      : [
          '',
          `${conflicts} of the changes are commented out, marked CONFLICT: the new primary changed the same rows.`,
        ]),
    ...list('Not in here', record.unsalvaged),
    ...list('To be known', record.notes),
    ...list(
      'Changes of the schema, to be made by hand where no statement stands below',
      record.schemaChanges.map((one) => `${one.change} ${one.kind} ${one.identity} in ${one.database}`),
    ),
    ...list('Prepared transactions that were still open', record.prepared),
  ]
  return `${asComment(lines.join('\n'))}\n\\set ON_ERROR_STOP on\n`
}

function list(title: string, entries: readonly string[]): readonly string[] {
  return entries.length === 0 ? [] : ['', `${title}:`, ...entries.map((entry) => `  - ${entry}`)]
}
