import type { StepContext } from '../engine/step.ts'
import { stateScript } from '../node/node.ts'
import type { SqlSession } from '../node/sql-session.ts'

/**
 * Ends the walreceiver of the step's node, where there is one. Its startup process starts another one, by the settings as they
 * are now, when it next lacks WAL. pg_terminate_backend() does not reach it.
 */
export async function endWalReceiver(ctx: StepContext, sql: SqlSession): Promise<void> {
  const pid = await sql.value('SELECT pid FROM pg_stat_wal_receiver')
  if (pid !== null) await ctx.node.run(stateScript(ctx.node, 'end the walreceiver', endScript, [pid]))
}

/** Only the walreceiver itself: a number may have been given to another process by now. */
const endScript = `
case $(ps -p "$2" -o args= 2>/dev/null) in *walreceiver*) kill -TERM "$2" ;; esac
:
`
