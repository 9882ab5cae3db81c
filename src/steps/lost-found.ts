import { holdsLostFound } from '../cluster/lost-found.ts'
import { shellScript } from '../command.ts'
import type { StepContext } from '../engine/step.ts'
import type { ReplctlError } from '../errors.ts'

/** An empty data directory may hold a link to where WAL is to lie. */
const script = `
if [ -e "$1/lost+found" ]; then printf 'data_dir\\t%s\\n' "$1"
elif [ "$2" = both ] && [ -L "$1/pg_wal" ] && [ -e "$1/pg_wal/lost+found" ]; then printf 'pg_wal\\t%s\\n' "$(readlink -f -- "$1/pg_wal")"
fi
`

/** Why a data directory that is to be filled anew cannot be, where it or its WAL folder is the top of a file system. */
export async function findLostFound(
  ctx: StepContext,
  where: 'data_dir' | 'both',
): Promise<ReplctlError | null> {
  const { dataDir } = ctx.node.settings.postgres
  const command = shellScript(`look for lost+found in ${dataDir}`, script, [dataDir, where])
  const { stdout } = await ctx.node.read(command, { timeoutMs: 15_000 })
  const [setting = '', path = ''] = stdout.trim().split('\t')
  return setting === '' ? null : holdsLostFound(ctx.node.name, path, setting as 'data_dir' | 'pg_wal')
}
