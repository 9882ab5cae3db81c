import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { program, shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { commandFailed, stateScript } from '../node/node.ts'
import { initdbArgs } from '../postgres/base-backup.ts'
import { quoteIdentifier } from '../postgres/sql.ts'
import { endUnfinishedRestore } from './end-restore.ts'
import { removeStateFile, writeMark } from './ensure-mark.ts'
import { binDirectoryOf, look, lookAtInstance, majorOf } from './look.ts'
import { realFolderScript } from './real-folder.ts'
import { isOwn } from './require-data-directory.ts'
import { noteWalLinkScript, restoreWalLinkScript, walLinkScript } from './wal-link.ts'
import { workLock } from './work-lock.ts'

/** Removes what stands in a data directory, but not the directory itself: it may be a mount point, or a link to a folder. */
export const emptyDirectoryScript = `
dir=$2
case $dir in /|'') exit 64 ;; esac
if [ -d "$dir" ]; then find "$dir/" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf -- {} +; fi
`

/** A node without data is no member any more, unless its old data directory is about to be put back. */
const forgetDirectoryScript = `${realFolderScript}
rmdir "$dir" 2>/dev/null
[ -e "$(real_folder "$dir").replctl-old" ] || [ -e "$state/rejoin.json" ] || rm -f "$state/cluster.json"
`

/** A link that leads to nothing may be one to a disk that is not mounted: only where the old directory lies beside, the folder is made. */
const makeDirectoryScript = `${walLinkScript}${realFolderScript}
dir=$2
if [ -L "$dir" ] && [ ! -e "$dir" ]; then
  at=$(real_folder "$dir")
  ls -d -- "$at".replctl-* >/dev/null 2>&1 || { echo "$dir is a link to $at, which is not there" >&2; exit 73; }
  mkdir -m 0700 -- "$at" || exit 73
elif [ ! -d "$dir" ]; then mkdir -p -- "$dir" || exit 73
fi
[ "$(ls -A -- "$dir" | grep -v '^lost+found$')" = "" ] || only_wal_link "$dir" || exit 65
${noteWalLinkScript}chmod 0700 "$dir" || exit 73
`

const ownDirectoryTitle = 'make the data directory and mark it as our own'

/**
 * Makes the (empty) data directory and marks it as replctl's own before anything goes into it. Taking that back empties it,
 * but not of a complete copy while its `source` does not answer: it may be the last one.
 */
export function ensureDataDirectory(
  node: NodeName,
  phase: 'initialising' | 'cloning',
  source?: NodeName,
): Step {
  return {
    title: ownDirectoryTitle,
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const { dataDir } = ctx.node.settings.postgres
      if (facts.dataDirectoryState === 'instance') return satisfied(`${dataDir} is there`)
      const isMarked = isOwn(facts, ctx.node.cluster, dataDir) && facts.mark?.inode !== ''
      return facts.dataDirectoryState !== 'missing' && isMarked
        ? satisfied(`${dataDir} is there and marked`)
        : pending(`${dataDir} is ${facts.dataDirectoryState}`)
    },
    apply: async (ctx) => {
      const { dataDir } = ctx.node.settings.postgres
      const command = stateScript(ctx.node, `make ${dataDir}`, makeDirectoryScript, [dataDir])
      const result = await ctx.node.run(command)
      if (result.status !== 0) throw cannotMake(node, dataDir, commandFailed(node, command, result))
      await removeStateFile(ctx, node, 'tablespaces')
      await writeMark(ctx, await look(ctx), phase, '')
    },
    undo: async (ctx) => {
      const { dataDir } = ctx.node.settings.postgres
      const facts = await look(ctx)
      if (!isOwn(facts, ctx.node.cluster, dataDir) || facts.mark?.phase === 'done') return
      if (facts.mark?.phase === 'cloned' && source !== undefined) await requireOriginal(ctx, source, facts)
      await ctx.node.output(
        stateScript(
          ctx.node,
          `empty ${dataDir}`,
          `${walLinkScript}${workLock}empty_wal_folder "$2"${emptyDirectoryScript}${restoreWalLinkScript}${forgetDirectoryScript}`,
          [dataDir],
        ),
        { timeoutMs: 600_000 },
      )
      await removeStateFile(ctx, node, 'node.json')
    },
  }
}

/** @throws {ReplctlError} `not-answering` unless the instance that a copy was taken from is there with the same data */
async function requireOriginal(ctx: StepContext, source: NodeName, copy: NodeFacts): Promise<void> {
  const there = await lookAtInstance(ctx, source).catch(() => null)
  if (there !== null && there.systemIdentifier === copy.mark?.systemIdentifier) return
  throw new ReplctlError('not-answering', `the copy on ${copy.name} stays: ${source} does not answer`, {
    detail: `It is complete, and nobody can say whether ${source} still has what is in it.`,
    hint: `Bring ${source} back, or promote a standby; then run the command again.`,
    node: source,
  })
}

function cannotMake(node: NodeName, dataDir: string, failed: ReplctlError): ReplctlError {
  return new ReplctlError('foreign-data-directory', `could not make ${dataDir} on ${node}`, {
    detail: failed.detail,
    hint: `Make it yourself, empty and owned by the PostgreSQL OS user: install -d -m 0700 -o postgres -g postgres ${dataDir}`,
    node,
  })
}

/**
 * Where the directory had a link \`pg_wal\`, initdb makes it again. The statements on standard input are run by a server in single-user
 * mode: it asks for no database that is not there yet, and nobody else can log in.
 */
const initialiseScript = `
data=$2; shift 2
if [ -n "$wal" ]; then set -- "$@" -X "$wal"; fi
"$@" 8>&- </dev/null || exit
read -r statement || exit 0
printf '%s\\n' "$statement" | "\${1%/initdb}/postgres" --single -D "$data" -c exit_on_error=on template1 8>&- >/dev/null
`

/** Those that initdb makes. */
const madeDatabases = ['postgres', 'template0', 'template1']

/**
 * Initialises the data directory with checksums, UTF-8 and a locale that is the same on every node, and makes the database that
 * replctl connects to: there is no instance yet in which somebody else could have made it.
 */
export function ensureInitialised(node: NodeName): Step {
  return {
    title: 'initialise the data directory with initdb',
    node,
    goesWith: ownDirectoryTitle,
    check: async (ctx) => {
      const facts = await look(ctx)
      // pg_control is written near the end; the mark's phase says whether initdb itself came to its end.
      const isComplete = facts.dataDirectoryState === 'instance' && facts.mark?.systemIdentifier !== ''
      return isComplete && facts.mark !== null
        ? satisfied(`system identifier ${facts.mark.systemIdentifier}`)
        : pending('it is not initialised')
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      const { dataDir, osUser, database } = ctx.node.settings.postgres
      await endUnfinishedRestore(ctx)
      const locales = await ctx.node.output(shellScript('list the locales', 'locale -a 2>/dev/null; :', []))
      const args = initdbArgs({
        major: majorOf(facts),
        dataDirectory: dataDir,
        superuser: osUser,
        characterType: /^C\.utf-?8$/im.test(locales) ? 'C.UTF-8' : 'C',
      })
      const initdb = program(`${binDirectoryOf(facts)}/initdb`, args)
      const command = stateScript(
        ctx.node,
        initdb.title,
        `${walLinkScript}${workLock}empty_wal_folder "$2"${emptyDirectoryScript}${initialiseScript}`,
        [dataDir, ...initdb.args],
        madeDatabases.includes(database) ? '' : `CREATE DATABASE ${quoteIdentifier(database)}\n`,
      )
      await ctx.node.output(command, { timeoutMs: 300_000 })
      const made = await look(ctx)
      await writeMark(ctx, made, 'initialising', made.control?.systemIdentifier ?? 'unknown')
    },
  }
}
