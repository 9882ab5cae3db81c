import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { refused, type Step, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { ask, binDirectoryOf, look, majorOf } from './look.ts'
import { suitableBinaries } from './require-binaries.ts'
import { isBegunClone } from './require-environment.ts'

/** The folder of the server's libraries is the one that holds what every standby needs; nothing is said where it is not found. */
const librariesScript = `
bin=$1; shift
for folder in "$bin/../lib" "$bin/../lib/postgresql" "$bin/../lib64"; do
  for suffix in so dylib; do
    [ -e "$folder/libpqwalreceiver.$suffix" ] || continue
    for name; do
      [ -e "$folder/$name" ] || [ -e "$folder/$name.$suffix" ] || printf '%s\\n' "$name"
    done
    exit 0
  done
done
`

/**
 * What the source loads when it starts is installed on the standby as well: with the source's configuration it would not start
 * without, and that would show only after the whole copy.
 */
export function requireLibraries(standby: NodeName, source: NodeName, isReclone: boolean): Step {
  return {
    title: `require the libraries that ${source} loads at its start`,
    node: standby,
    check: async (ctx) => {
      const [facts, { facts: there, sql }] = await Promise.all([look(ctx), ask(ctx, source)])
      const isWhole = facts.dataDirectoryState === 'instance' && !isBegunClone(ctx, facts)
      if (isWhole && !isReclone) return satisfied('the copy is there already')
      const { parameters, dataDir } = ctx.node.settings.postgres
      const wished = parameters.shared_preload_libraries
      // Debian's own cluster, say, has its own configuration.
      if (facts.configDirectory !== dataDir && wished === undefined)
        return satisfied('it has a configuration of its own')
      const [live, path] = await sql.json<readonly [string, string]>(
        `SELECT json_build_array(current_setting('shared_preload_libraries'), current_setting('dynamic_library_path'))`,
      )
      const names = (wished ?? live)
        .split(',')
        .map((name) =>
          name
            .trim()
            .replace(/^"(.*)"$/, '$1')
            .replace(/^\$libdir\//, ''),
        )
        .filter((name) => name !== '' && !name.includes('/'))
      if (names.length === 0 || path !== '$libdir') return satisfied('there are none that can be looked for')
      const binaries = suitableBinaries(facts, majorOf(there))
      const output = await ctx.node.output(
        shellScript(
          'look for libraries',
          librariesScript,
          [binaries?.directory ?? binDirectoryOf(facts), ...names],
          {
            isQuick: true,
          },
        ),
      )
      const missing = output.split('\n').filter((name) => name !== '')
      if (missing.length === 0) return satisfied(names.join(', '))
      return refused(
        new ReplctlError('binaries-missing', `${standby} lacks the library ${missing.join(', ')}`, {
          detail: `It is in shared_preload_libraries of ${source}: a copy of that would not start on ${standby}.`,
          hint: `Install the package of that extension on ${standby}, then run the command again.`,
          node: standby,
        }),
      )
    },
  }
}
