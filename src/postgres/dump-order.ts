/**
 * Splits the list of a dump (`pg_restore --list`) of tables that are to be made beside those that are there already: what has to be
 * there `before` their rows, and what may come only `after` them (null: nothing).
 * - A trigger would do once more what it did on the old primary, a foreign key refuse a row that refers to a later one.
 * - pg_dump attaches a partition before it gives it its indexes; a parent that is there and has some makes them for whatever is
 *   attached without, and the dump's own ones are refused then (a second primary key, a name that is taken). Attached, a table gets
 *   its parent's triggers and foreign keys as well.
 * - A comment may be on either.
 * @see src/bin/pg_dump/pg_dump_sort.c, dbObjectTypePriority
 */
export function splitDump(list: string): { readonly before: string; readonly after: string | null } {
  const lines = list.split('\n')
  // What attaches indexes comes after the tables.
  const late = [...lines.filter(isTableAttach), ...lines.filter(isLate)]
  const before = lines.filter((line) => !isTableAttach(line) && !isLate(line)).join('\n')
  return { before, after: late.length === 0 ? null : `${late.join('\n')}\n` }
}

/** e.g. `3214; 0 0 TABLE ATTACH public part_c postgres`; what is attached has no OID of its own. */
const isTableAttach = (line: string): boolean => /^\d+; 0 0 TABLE ATTACH /.test(line)

/** e.g. `3233; 0 0 INDEX ATTACH public part_c_pkey postgres`, `3240; 2620 16408 TRIGGER public part_c t postgres`. */
const isLate = (line: string): boolean =>
  /^\d+; 0 0 (INDEX ATTACH|COMMENT) /.test(line) ||
  /^\d+; [1-9]\d* \d+ (FK CONSTRAINT|TRIGGER|RULE) /.test(line)
