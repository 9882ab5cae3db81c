import { isOfNothing, type SalvageRecord, type SalvageResult } from '../cluster/salvage.ts'
import type { Paint } from './paint.ts'
import { columns } from './table.ts'

/** What was saved of a node, table by table, and what is to be done with it. */
export function salvageText(
  node: string,
  record: SalvageRecord | null,
  isNew: boolean,
  paint: Paint,
): string {
  if (record === null || isOfNothing(record)) {
    return `${paint.good('✓')} ${paint.name(node)} has nothing that the primary lacks.\n`
  }
  const { rows, transactions, dir, conflicts } = record
  const mark = record.isComplete ? paint.good('✓') : paint.warn('!')
  return [
    isNew ? '' : `${paint.name(node)} has nothing that was not saved before:\n`,
    `${mark} ${paint.strong(`${rows} rows of ${transactions} transactions`)} that only ${paint.name(node)} had are saved on it, in\n`,
    `  ${dir}\n`,
    columns(
      record.tables.map((one) => [
        `  ${one.database === 'postgres' ? '' : `${one.database}: `}${one.schema}.${one.table}`,
        `+${one.inserted} ~${one.updated} -${one.deleted}`,
        one.conflicts === 0 ? '' : paint.warn(`${one.conflicts} in conflict`),
      ]),
    ),
    ...besidesRows(record),
    conflicts === 0
      ? 'Review salvage.sql there, then apply it to the primary.\n'
      : `${conflicts} changes are commented out in salvage.sql: the primary changed the same rows. Review it, then apply it there.\n`,
  ].join('')
}

/** What was lost besides rows, and what is to be known of these. */
export function besidesRows(
  record: Pick<SalvageResult, 'schemaChanges' | 'sequences' | 'prepared' | 'unsalvaged' | 'notes'>,
): readonly string[] {
  return [
    ...section(
      'Schema',
      record.schemaChanges.map(({ change, kind, identity }) => `${change} ${kind} ${identity}`),
    ),
    ...section(
      'Sequences ahead',
      record.sequences.map(
        (one) => `${one.sequence}: ${one.lastValue}, on the primary ${one.primaryLastValue ?? 'none'}`,
      ),
    ),
    ...section('Prepared transactions that were still open', record.prepared),
    ...section('Not saved', record.unsalvaged),
    ...section('Note', record.notes),
  ]
}

function section(title: string, entries: readonly string[]): readonly string[] {
  return entries.length === 0 ? [] : [`${title}:\n`, ...entries.map((entry) => `  ${entry}\n`)]
}
