import type { NodeFacts } from '../../cluster/facts.ts'
import type { NodeName } from '../../cluster/names.ts'
import type { StepContext } from '../../engine/step.ts'
import { asReplctlError, ReplctlError } from '../../errors.ts'
import { type IsolatedPlace, openIsolated, socketDirectoryOf } from '../../node/isolated-instance.ts'
import type { SalvageFolder, TextWriter } from '../../node/salvage-folder.ts'
import { openSqlSession, type SqlSession } from '../../node/sql-session.ts'
import { sqlEndpointOf } from '../../node/survey.ts'
import { splitDump } from '../../postgres/dump-order.ts'
import type { LostChanges, LostTransactions } from '../../postgres/lost-transactions.ts'
import { quoteLiteral } from '../../postgres/sql.ts'
import { look } from '../look.ts'
import { nothingSaved, type SalvagePart, saveDatabase, type TableDump } from './save-database.ts'

export interface NodeTask {
  readonly place: IsolatedPlace
  readonly primary: NodeName
  readonly folder: SalvageFolder
  readonly lost: LostTransactions
  readonly changes: LostChanges
  readonly rows: TextWriter
  readonly sql: TextWriter
}

/** Writes out what lost transactions did in all databases of the isolated instance. */
export async function saveNode(ctx: StepContext, task: NodeTask): Promise<SalvagePart> {
  const there = await look(ctx, task.primary)
  const { postgres } = ctx.node.settings
  const first = await openIsolated(ctx.node, task.place, postgres.database)
  const parts: SalvagePart[] = []
  try {
    parts.push(await unloggedTables(first, postgres.database))
    parts.push(await stillPrepared(ctx, there, task.lost))
    for (const { oid, name } of await databasesOf(first)) {
      const hasShared = name === postgres.database && touches(task.changes, '0')
      if (!touches(task.changes, oid) && !hasShared) continue
      parts.push(await saveOne(ctx, task, there, { oid, name, hasShared }))
      if (ctx.signal.aborted) throw new ReplctlError('interrupted', 'interrupted while rows were saved')
    }
    parts.push(await droppedDatabases(first, task.changes))
  } finally {
    await first.close()
  }
  return joinParts(parts)
}

function joinParts(parts: readonly SalvagePart[]): SalvagePart {
  return {
    tables: parts.flatMap((part) => part.tables),
    sequences: parts.flatMap((part) => part.sequences),
    schemaChanges: parts.flatMap((part) => part.schemaChanges),
    unsalvaged: parts.flatMap((part) => part.unsalvaged),
    notes: parts.flatMap((part) => part.notes),
    rows: parts.reduce((sum, part) => sum + part.rows, 0),
  }
}

const touches = (changes: LostChanges, database: string): boolean =>
  [...changes.relations.keys(), ...changes.createdFiles, ...changes.sequences].some(
    (relation) => relation.split('/')[1] === database,
  )

interface Database {
  readonly oid: string
  readonly name: string
}

async function databasesOf(sql: SqlSession): Promise<readonly Database[]> {
  return await sql.json(
    "SELECT json_agg(json_build_object('oid', oid::text, 'name', datname) ORDER BY oid)::text FROM pg_database WHERE datallowconn",
  )
}

async function saveOne(
  ctx: StepContext,
  task: NodeTask,
  there: NodeFacts,
  { oid, name, hasShared }: Database & { readonly hasShared: boolean },
): Promise<SalvagePart> {
  const own = await openIsolated(ctx.node, task.place, name)
  let primary: SqlSession | null = null
  try {
    primary = await openOnPrimary(ctx, there, name)
    const saved = await saveDatabase({
      ...task,
      database: name,
      oid,
      hasShared,
      own,
      primary,
      isInterrupted: () => ctx.signal.aborted,
      progress: (done, total) => ctx.progress({ message: `saved ${done} of ${total} rows of ${name}` }),
      dumpTables: (idents) => dumpTables(ctx, task, name, idents),
    })
    const schema = saved.schemaChanges.length === 0 ? nothingSaved : await saveSchema(ctx, task, name)
    if (name === ctx.node.settings.postgres.database) return joinParts([saved, schema])
    return joinParts([await unloggedTables(own, name), saved, schema])
  } catch (thrown) {
    const error = asReplctlError(thrown)
    // Only what the old instance itself refuses is a fact about it; all else is worth another run.
    if (error.code !== 'sql-failed' && (error.code !== 'not-answering' || error.node === there.name))
      throw error
    return { ...nothingSaved, unsalvaged: [`database ${name}: ${error.message}`] }
  } finally {
    await own.close()
    await primary?.close()
  }
}

/** Null where the new primary has no such database: asked for, since what the server says of it is in its own language. */
export async function openOnPrimary(
  ctx: StepContext,
  there: NodeFacts,
  database: string,
): Promise<SqlSession | null> {
  const node = ctx.on(there.name)
  const settings = { ...node.settings, postgres: { ...node.settings.postgres, database } }
  const endpoint = sqlEndpointOf(node, there)
  const sql = await node.sql(endpoint)
  const count = await sql.value(
    `SELECT count(*)::text FROM pg_database WHERE datname = ${quoteLiteral(database)}`,
  )
  if (count === '0') return null
  try {
    return await openSqlSession(node.transport, settings, endpoint)
  } catch (thrown) {
    throw asReplctlError(thrown).with({ node: there.name })
  }
}

const dumpScript = `
bin=$3 socket=$4 port=$5 user=$6; export PGDATABASE="$7"; shift 7
{ [ -x "$bin/pg_dump" ] && [ -x "$bin/pg_restore" ]; } || { echo none; exit 0; }
for table do shift; set -- "$@" -t "$table"; done
if said=$("$bin/pg_dump" -h "$socket" -p "$port" -U "$user" -w --schema-only -Fc -f "$dir/dump" "$@" 2>&1); then
  echo dumped
  "$bin/pg_restore" -l "$dir/dump"
else
  printf 'failed\\n%s\\n' "$said"
fi`

/** The text is whole or it is not taken: what is missing in it would be missed only when salvage.sql is applied. */
const textOfDumpScript = `
bin=$3 turn=$4
cat > "$dir/dump.list"
if said=$("$bin/pg_restore" -L "$dir/dump.list" -f "$dir/dump.sql" "$dir/dump" 2>&1); then
  echo dumped
  grep -v '^\\\\\\(un\\)\\{0,1\\}restrict ' "$dir/dump.sql"
else
  printf 'failed\\n%s\\n' "$said"
fi
rm -f "$dir/dump.list" "$dir/dump.sql"
[ "$turn" = first ] || rm -f "$dir/dump"`

/** The whole schema of a database, appended. The name goes by the environment: in an argument one with a `=` is taken for more than a name. */
const schemaScript = `
bin=$3 socket=$4 port=$5 user=$6; export PGDATABASE="$7"
[ -x "$bin/pg_dump" ] || { echo none; exit 0; }
if said=$("$bin/pg_dump" -h "$socket" -p "$port" -U "$user" -w --schema-only --lock-wait-timeout=10s -f "$dir/dump" 2>&1); then
  echo dumped
  { printf '%s\\n' '' "-- Database $7"; cat "$dir/dump"; } >> "$dir/schema.sql"
else
  printf 'failed\\n%s\\n' "$said"
fi
rm -f "$dir/dump"`

/** The schema that only this node has, for what salvage.sql does not create (functions, views, types): it is gone with the rewind. */
async function saveSchema(
  ctx: StepContext,
  { place, folder }: NodeTask,
  database: string,
): Promise<SalvagePart> {
  const { port, osUser } = ctx.node.settings.postgres
  const dump = readDump(
    await folder.run('save the schema', schemaScript, [
      ...[place.binDirectory, socketDirectoryOf(ctx.node, place), String(port), osUser, database],
    ]),
  )
  const where = `the definitions of what was created or changed in the schema of ${database}`
  if (dump.is === 'dumped') return { ...nothingSaved, notes: [`${where} are in schema.sql`] }
  const why = dump.is === 'none' ? 'no pg_dump on the node' : `pg_dump failed: ${dump.said}`
  return { ...nothingSaved, notes: [`${where} are not saved: ${why}`] }
}

/** CREATE statements by the node's own pg_dump, in an order that fits beside what the new primary has. */
async function dumpTables(
  ctx: StepContext,
  { place, folder }: NodeTask,
  database: string,
  idents: readonly string[],
): Promise<TableDump> {
  const { port, osUser } = ctx.node.settings.postgres
  const dumped = readDump(
    await folder.run('dump the definition of new tables', dumpScript, [
      ...[place.binDirectory, socketDirectoryOf(ctx.node, place), String(port), osUser, database, ...idents],
    ]),
  )
  if (dumped.is !== 'dumped') return dumped
  const { before, after } = splitDump(dumped.text)
  const read = async (list: string, turn: 'first' | 'last') =>
    readDump(
      await folder.run('read the dump of new tables', textOfDumpScript, [place.binDirectory, turn], list),
    )
  const first = await read(before, 'first')
  const last = await read(after ?? before, 'last')
  if (first.is !== 'dumped' || last.is !== 'dumped') return first.is === 'dumped' ? last : first
  return { is: 'dumped', text: first.text, after: after === null ? '' : last.text }
}

/** What the scripts above print: a word on how it went, then the text. */
function readDump(output: string): TableDump {
  const end = output.indexOf('\n')
  const text = output.slice(end + 1)
  const word = output.slice(0, end)
  if (word === 'none') return { is: 'none' }
  return word === 'dumped' ? { is: 'dumped', text, after: '' } : { is: 'failed', said: text.trim() }
}

/** Prepared before the fork and committed after it: there they are still prepared, and salvage.sql would wait for their end. */
async function stillPrepared(
  ctx: StepContext,
  there: NodeFacts,
  { straddlers }: LostTransactions,
): Promise<SalvagePart> {
  if (straddlers.length === 0) return nothingSaved
  const node = ctx.on(there.name)
  const sql = await node.sql(sqlEndpointOf(node, there))
  const open = await sql.json<readonly { readonly gid: string; readonly database: string }[]>(
    `SELECT coalesce(json_agg(json_build_object('gid', gid, 'database', database) ORDER BY gid), '[]')::text
       FROM pg_prepared_xacts WHERE transaction::text::bigint IN (${straddlers.join(', ')})`,
  )
  const notes = open.map(
    ({ gid, database }) =>
      `the prepared transaction ${quoteLiteral(gid).trim()} in ${database} was committed here, and is still open on the new primary: end it before salvage.sql is applied, which would wait for it (COMMIT PREPARED ${quoteLiteral(gid).trim()} there makes its changes; psql then says NOT DONE of them)`,
  )
  return { ...nothingSaved, notes }
}

/** A crash empties them, and a standby cannot read them. */
async function unloggedTables(sql: SqlSession, database: string): Promise<SalvagePart> {
  const list = await sql.value(
    "SELECT string_agg(format('%I.%I', relnamespace::regnamespace, relname), ', ') FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'",
  )
  return list === null
    ? nothingSaved
    : {
        ...nothingSaved,
        notes: [`unlogged tables leave no WAL, nothing of them in ${database} is saved: ${list}`],
      }
}

/** Databases that lost transactions dropped after they had changed something in them. */
async function droppedDatabases(sql: SqlSession, changes: LostChanges): Promise<SalvagePart> {
  const known = new Set(['0', ...(await databasesOf(sql)).map(({ oid }) => oid)])
  const gone = new Set([...changes.relations.keys()].map((relation) => relation.split('/')[1] ?? ''))
  const oids = [...gone].filter((oid) => !known.has(oid))
  return oids.length === 0
    ? nothingSaved
    : {
        ...nothingSaved,
        unsalvaged: [
          `changes in the databases with the OIDs ${oids.join(', ')}: they do not exist (any more), or take no connections`,
        ],
      }
}
