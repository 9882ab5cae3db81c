import type { NodeName } from '../cluster/names.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { readWithIncludes } from '../node/config-includes.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import type { Node } from '../node/node.ts'
import { commentOutSettings } from '../postgres/config-file.ts'
import { placeOfFiles } from './configuration-files.ts'
import { look } from './look.ts'

/** The folder of statistics (14 and older) is made by pg_ctlcluster alone: without it each query of them would wait 10 s. */
const placesOfItsOwn = [
  ...['data_directory', 'hba_file', 'ident_file', 'external_pid_file', 'listen_addresses'],
  'stats_temp_directory',
]

const namesOfFiles = ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf']

/**
 * A clone of an instance whose configuration lies outside its data directory (Debian) has none: the source's files
 * are put into the clone's data directory, with the lines that name the source's paths commented out. So is a single one that is a
 * link there: pg_basebackup leaves it out, and a pg_hba.conf with replctl's lines alone would keep every client out.
 */
export function copyConfigurationFiles(node: NodeName, source: NodeName): Step {
  return {
    title: `have the configuration files that ${source} has outside its data directory`,
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const isCopyOfCopy = ctx.isDryRun && (await look(ctx, source)).dataDirectoryState !== 'instance'
      if (isCopyOfCopy && facts.dataDirectoryState !== 'instance') return satisfied('they come with the copy')
      const from = await placeOfFiles(ctx, facts, source)
      const missing = from === null ? namesOfFiles : await missingFiles(ctx, from, source)
      if (missing.length === 0) return satisfied(`they are in ${from?.directory}`)
      return facts.dataDirectoryState === 'instance'
        ? pending(`there is no ${missing.join(', ')} in ${facts.configDirectory}`)
        : { is: 'unknown', until: 'the base backup' }
    },
    apply: async (ctx) => {
      const [facts, from] = await Promise.all([look(ctx), look(ctx, source)])
      const here = { on: ctx.node, directory: facts.configDirectory }
      for (const name of (await missingFiles(ctx, here, source)).toReversed()) {
        const path = `${from.configDirectory}/${name}`
        const isMain = name === 'postgresql.conf'
        const text = isMain
          ? await readWithIncludes(ctx.on(source), path)
          : await readTextFile(ctx.on(source), path)
        if (text === null) continue
        const own = isMain ? commentOutSettings(text, placesOfItsOwn, `of ${source} alone`) : text
        await writeTextFile(ctx.node, `${facts.configDirectory}/${name}`, own, { mode: '0600' })
      }
    },
  }
}

const presentScript = `
dir=$1 copied=$2; shift 2
for name; do
  if [ -n "$copied" ] && [ -L "$dir/$name" ]; then continue; fi
  [ ! -e "$dir/$name" ] || printf '%s\\n' "$name"
done
`

/**
 * What is to be fetched from the source: all of it where there is no postgresql.conf, else what the source has and this place has not.
 * A place on another node is that of a copy which is yet to be made.
 */
async function missingFiles(
  ctx: StepContext,
  place: { readonly on: Node; readonly directory: string },
  source: NodeName,
): Promise<readonly string[]> {
  const present = async (on: Node, directory: string, isCopied: boolean) => {
    const args = [directory, isCopied ? 'yes' : '', ...namesOfFiles]
    return (
      await on.output(shellScript('look for configuration files', presentScript, args, { isQuick: true }))
    ).split('\n')
  }
  const here = await present(place.on, place.directory, place.on !== ctx.node)
  const missing = namesOfFiles.filter((name) => !here.includes(name))
  if (missing.length === 0) return []
  if (missing.includes('postgresql.conf')) return namesOfFiles
  const there = await present(ctx.on(source), (await look(ctx, source)).configDirectory, false)
  return missing.filter((name) => there.includes(name))
}
