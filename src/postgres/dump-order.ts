/**
 * Puts the list of a dump (`pg_restore --list`) in the order in which it can be restored beside partitioned tables that are there
 * already. pg_dump attaches a partition before it gives it its indexes; a parent that is there and has some makes them for whatever
 * is attached without, and the dump's own ones are refused then (a second primary key, a name that is taken).
 * @see src/bin/pg_dump/pg_dump_sort.c, dbObjectTypePriority
 */
export function attachWithIndexes(list: string): string {
  const lines = list.split('\n')
  const attached = lines.filter(isTableAttach)
  const indexed = lines.filter((line) => !isTableAttach(line))
  const last = indexed.findLastIndex(isIndex)
  if (attached.length === 0 || last < 0) return list
  // Behind the last index, but what attaches indexes comes after the tables.
  const [before, after] = [indexed.slice(0, last + 1), indexed.slice(last + 1)]
  const early = before.filter(isIndexAttach)
  return [...before.filter((line) => !isIndexAttach(line)), ...attached, ...early, ...after].join('\n')
}

/** e.g. `3214; 0 0 TABLE ATTACH public part_c postgres`; what is attached has no OID of its own. */
const isTableAttach = (line: string): boolean => /^\d+; 0 0 TABLE ATTACH /.test(line)
const isIndexAttach = (line: string): boolean => /^\d+; 0 0 INDEX ATTACH /.test(line)

/** e.g. `3221; 2606 16406 CONSTRAINT public part_c part_c_pkey postgres`, `3222; 1259 16407 INDEX public part_c_v_idx postgres`. */
const isIndex = (line: string): boolean => /^\d+; [1-9]\d* \d+ (CONSTRAINT|INDEX) /.test(line)
