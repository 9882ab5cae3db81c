import type { TableCount } from '../cluster/compare-counts.ts'
import { shellScript } from '../command.ts'
import type { Node, SqlEndpoint } from './node.ts'

/**
 * Counts every ordinary table of every database; a line of JSON for each table. Each is counted by itself: no lock outlasts its
 * count. One that is dropped meanwhile, or that somebody else locks for long, is left out.
 */
export const countScript = `
database=$1 bin=$2; shift 2
ask() { "$bin/psql" -X -A -t -q -w -v ON_ERROR_STOP=1 "$@"; }
names=$(ask "$@" -d "$database" -c "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1") || exit 1
printf '%s\\n' "$names" | while IFS= read -r name; do
  counts=$(ask "$@" -d "$name" <<'SQL'
SELECT format('SELECT json_build_object(''database'', current_database(), ''schema'', %L, ''table'', %L, ''rows'', (SELECT count(*) FROM ONLY %I.%I), ''changes'', (SELECT coalesce(n_tup_ins + n_tup_upd + n_tup_del, 0) FROM pg_stat_all_tables WHERE relid = %s));',
    nspname, relname, nspname, relname, c.oid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
 WHERE relkind = 'r' AND relpersistence = 'p' AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY 1;
SQL
  ) || exit 1
  printf "SET lock_timeout = '10s';\\n%s\\n" "$counts" | "$bin/psql" -X -A -t -q -w "$@" -d "$name" || exit 1
done
`

/** As long as it takes to read everything. */
const countMs = 24 * 3_600_000

/** Counts the rows of every table of an instance. */
export async function countRows(node: Node, endpoint: SqlEndpoint): Promise<readonly TableCount[]> {
  const { osUser, database } = node.settings.postgres
  const output = await node.output(
    shellScript('count the rows of every table', countScript, [
      ...[database, endpoint.binDirectory, '-h', endpoint.socketDirectory],
      ...['-p', String(endpoint.port), '-U', osUser],
    ]),
    { timeoutMs: countMs },
  )
  return output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as TableCount)
}
