import { type ComparedTable, compareCounts, type TableCount } from '../cluster/compare-counts.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { countRows } from '../node/count-rows.ts'
import { stateVariableScript } from '../node/node.ts'
import { sqlEndpointOf } from '../node/survey.ts'
import { switchWal } from '../node/switch-wal.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { emptyRestore, recoverySocketOf } from './end-restore.ts'
import { ask, awaitState, look } from './look.ts'
import { ownRecord, type Restore } from './restore-record.ts'

/** What a drill found out. */
export interface DrillReport {
  /** How the restored data was read in full. */
  readonly checked_with: 'pg_amcheck' | 'pg_dumpall'
  /** What was found wrong; empty: nothing. */
  readonly findings: readonly string[]
  readonly tables: readonly ComparedTable[]
}

/** What one drill carries from step to step. An interrupted drill begins anew, for its counts are those of its beginning. */
export interface DrillNotes {
  before: readonly TableCount[] | null
  report: DrillReport | null
}

/** Counts the primary's rows, then has its WAL up to now in the archive: that much must come back. */
export function noteRowsOfPrimary(restore: Restore, primary: NodeName, notes: DrillNotes): Step {
  return {
    title: 'count the rows of every table, and have all WAL until now in the archive',
    node: primary,
    check: async () =>
      notes.before === null ? pending('they are not counted yet') : satisfied('they are counted'),
    apply: async (ctx) => {
      const { facts, sql } = await ask(ctx)
      notes.before = await countRows(ctx.node, sqlEndpointOf(ctx.node, facts))
      const segment = await switchWal(sql)
      const wal = `${restore.archive.dir}/${restore.choice.systemIdentifier}/wal`
      const script = 'for file in "$1/$2" "$1/$2".*; do [ -f "$file" ] && echo there; done; :'
      await awaitState(
        ctx,
        `segment ${segment} reaches the archive`,
        async () => {
          const command = shellScript(`look for ${segment}`, script, [wal, segment])
          return (await ctx.on(archiveHost).output(command)).includes('there') ? true : undefined
        },
        { everyMs: 100 },
      )
    },
  }
}

/** A scratch directory that an interrupted drill left is begun anew. */
export function clearDrill(restore: Restore): Step {
  let isClear = false
  return {
    title: 'remove what an interrupted drill left',
    node: restore.at,
    check: async (ctx) =>
      isClear || (await ownRecord(ctx)) === null
        ? satisfied('there is nothing')
        : pending('there is something'),
    apply: async (ctx) => {
      await removeAll(ctx, restore)
      isClear = true
    },
  }
}

const readAllScript = `
bin=$1 how=$2; shift 2
if [ "$how" = pg_amcheck ]; then
  "$bin/pg_amcheck" --all --install-missing --heapallindexed -w "$@" 2>&1
else
  { "$bin/pg_dumpall" -w "$@" >/dev/null; } 2>&1
fi
`

/** Reads everything that was restored, and compares its rows with the primary's. It finds; it does not fail. */
export function examineDrill(restore: Restore, primary: NodeName | null, notes: DrillNotes): Step {
  return {
    title: 'read all of it (pg_amcheck, else a full dump), and compare its rows with the primary',
    node: restore.at,
    check: async (ctx) => {
      if (notes.report !== null) return satisfied('it is examined')
      return (await ownRecord(ctx))?.phase === 'recovered'
        ? pending('it is not examined yet')
        : unknownUntil('it is recovered')
    },
    apply: async (ctx) => {
      const { facts, sql } = await ask(ctx)
      const endpoint = sqlEndpointOf(ctx.node, facts)
      const { major } = restore.choice.backup
      const hasAmcheck =
        capabilitiesOf(major).amcheckProgram &&
        (await sql.value("SELECT name FROM pg_available_extensions WHERE name = 'amcheck'")) !== null &&
        (
          await ctx.node.run(
            shellScript('look for pg_amcheck', '[ -x "$1/pg_amcheck" ]', [endpoint.binDirectory]),
          )
        ).status === 0
      const how = hasAmcheck ? 'pg_amcheck' : 'pg_dumpall'
      ctx.progress({ message: how })
      const read = await ctx.node.run(
        shellScript(`read everything with ${how}`, readAllScript, [
          ...[endpoint.binDirectory, how, '-h', endpoint.socketDirectory, '-p', String(endpoint.port)],
          ...['-U', ctx.node.settings.postgres.osUser],
        ]),
        { timeoutMs: 24 * 3_600_000 },
      )
      const said = read.stdout.trim().split('\n').slice(-10).join('\n')
      const findings = read.status === 0 ? [] : [`${how} ended with status ${read.status}: ${said}`]
      const tables = await compareWithPrimary(ctx, primary, notes, await countRows(ctx.node, endpoint))
      const differ = tables.filter((table) => !table.ok)
      notes.report = {
        checked_with: how,
        findings: [
          ...findings,
          ...differ.map(
            ({ database, schema, table, restored_rows, primary_rows }) =>
              `table ${schema}.${table} of database ${database} has ${restored_rows ?? 'no'} rows where the primary has ${primary_rows}`,
          ),
        ],
        tables,
      }
    },
  }
}

async function compareWithPrimary(
  ctx: StepContext,
  primary: NodeName | null,
  notes: DrillNotes,
  restored: readonly TableCount[],
): Promise<readonly ComparedTable[]> {
  if (primary === null || notes.before === null) return []
  const facts = await look(ctx, primary)
  const after = await countRows(ctx.on(primary), sqlEndpointOf(ctx.on(primary), facts))
  return compareCounts(notes.before, after, restored)
}

/** Nothing of the drill stays. */
export function removeDrill(restore: Restore, notes: DrillNotes): Step {
  return {
    title: 'stop it and remove all of it',
    node: restore.at,
    check: async (ctx) => {
      if (notes.report === null) return unknownUntil('it is examined')
      return (await ownRecord(ctx)) === null ? satisfied('it is gone') : pending('it is still there')
    },
    apply: (ctx) => removeAll(ctx, restore),
  }
}

async function removeAll(ctx: StepContext, restore: Restore): Promise<void> {
  await emptyRestore(ctx, restore)
  const { postgres, stateDir } = ctx.node.settings
  const script = `${stateVariableScript}rmdir -- "$2"; rm -rf -- "$3" "$state"`
  await ctx.node.output(
    shellScript('remove the scratch directory', script, [
      ...[stateDir, postgres.dataDir, recoverySocketOf(postgres.dataDir)],
    ]),
  )
}
