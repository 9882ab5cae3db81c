import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeName } from '../cluster/names.ts'
import { describeRoom, hintForRoom, type Room, tooSmall } from '../cluster/room.ts'
import { isSameMachine } from '../cluster/state-directory.ts'
import { shellScript } from '../command.ts'
import { refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { listenArgs, listenScript } from '../node/listen-script.ts'
import { measureRoom, readCopySize } from '../node/measure-room.ts'
import { stateVariableScript } from '../node/node.ts'
import { ask, awaitState, look } from './look.ts'
import { canBeMoved, isAside } from './replace-data-directory.ts'
import { isOwn } from './require-data-directory.ts'

/** Nothing else listens on the port, unless it is the node's own instance. */
export function requireFreePort(node: NodeName): Step {
  return {
    title: 'require a free port',
    node,
    check: async (ctx) => {
      const facts = await look(ctx)
      const { port, dataDir } = ctx.node.settings.postgres
      const { postmaster } = facts
      if (postmaster?.isAlive === true && (postmaster.port ?? port) === port) {
        return satisfied(`our own instance has port ${port}`)
      }
      const output = await ctx.node.output(
        shellScript(`look who listens on port ${port}`, listenScript, listenArgs(ctx.node.settings.postgres)),
      )
      if (output.trim() === '') return satisfied(`nothing listens on port ${port}`)
      const owner = /^data (.*)$/m.exec(output)?.[1]
      if (owner === dataDir) return satisfied(`${dataDir} had it, and is stopped`)
      return refused(
        new ReplctlError('port-in-use', `port ${port} on ${node} is in use`, {
          detail: owner === undefined ? 'Something listens there.' : `The instance in ${owner} has it.`,
          hint:
            owner === undefined
              ? 'Choose another postgres.port, or stop what listens there.'
              : `Stop that instance (on Debian: pg_dropcluster --stop if it is unused), or choose another postgres.port.`,
          node,
        }),
      )
    },
  }
}

/** What stands there is of a clone that we began and did not end: whoever begins it anew removes it first. */
export function isBegunClone(ctx: StepContext, facts: NodeFacts): boolean {
  return isOwn(facts, ctx.node.cluster, ctx.node.settings.postgres.dataDir) && facts.mark?.phase === 'cloning'
}

/**
 * Where the standby's data directory and tablespaces will lie, there is room for the source's: beside an old one that is moved aside
 * until the new one streams, or in the place of one that cannot be moved, and is emptied.
 */
export function requireDiskSpace(
  standby: NodeName,
  source: NodeName,
  { isReclone = false, isResumed = false }: { isReclone?: boolean; isResumed?: boolean | undefined } = {},
): Step {
  /** What is to be replaced; not a whole copy of this very operation. */
  const isOld = async (ctx: StepContext, { mark, dataDirectoryInode }: NodeFacts) => {
    if (!isReclone) return false
    const isCopy = mark?.phase === 'cloned' && mark.inode === dataDirectoryInode
    return !(isCopy && (isResumed || (await isAside(ctx))))
  }
  return {
    title: `require disk space for a copy of ${source}`,
    node: standby,
    check: async (ctx) => {
      const [facts, { sql }] = await Promise.all([look(ctx), ask(ctx, source)])
      const isBegun = isBegunClone(ctx, facts)
      const isWhole = facts.dataDirectoryState === 'instance' && !isBegun
      if (isWhole && !(await isOld(ctx, facts))) return satisfied('the copy is there already')
      const isBeside = isWhole && (await canBeMoved(ctx))
      const { dataDir } = ctx.node.settings.postgres
      const rooms = await measureRoom(ctx.node, await readCopySize(sql), isBegun || (isWhole && !isBeside))
      if (rooms.length === 0) return satisfied('free space is unknown')
      const [short] = tooSmall(rooms)
      if (short === undefined) return satisfied(rooms.map(describeRoom).join('; '))
      return refused(
        isBeside ? noRoomBeside(standby, source, short) : noRoom(standby, source, short, dataDir),
      )
    },
  }
}

function noRoom(standby: NodeName, source: NodeName, short: Room, dataDir: string): ReplctlError {
  return new ReplctlError('disk-full', `${standby} has no room for a copy of ${source}`, {
    detail: `${describeRoom(short)}.`,
    hint: hintForRoom(short, dataDir),
    node: standby,
  })
}

function noRoomBeside(standby: NodeName, source: NodeName, short: Room): ReplctlError {
  return new ReplctlError('disk-full', `${standby} has no room for a copy of ${source} beside the old one`, {
    detail: `${describeRoom(short)}. The old data directory goes only after the new one streams.`,
    hint: `Free some space there; or, to give the old one up first: replctl remove-standby ${standby} --purge, then replctl add-standby ${standby}`,
    node: standby,
  })
}

/** Folders that a clone we began fills already stand in a file of the state directory. */
const tablespaceScript = `
shift
for dir; do
  if [ ! -d "$dir" ]; then printf 'missing\\t%s\\n' "$dir"
  elif [ -e "$dir/lost+found" ]; then printf 'lost+found\\t%s\\n' "$dir"
  elif grep -qxF -- "$dir" "$state/tablespaces" 2>/dev/null; then :
  elif [ ! -w "$dir" ]; then printf 'not-writable\\t%s\\n' "$dir"
  elif [ -n "$(ls -A -- "$dir")" ]; then printf 'not-empty\\t%s\\n' "$dir"
  fi
done
`

/** Every tablespace of the source finds an empty folder at the same path on the standby. */
export function requireTablespaceFolders(standby: NodeName, source: NodeName, isReclone: boolean): Step {
  return {
    title: `require empty folders for the tablespaces of ${source}`,
    node: standby,
    check: async (ctx) => {
      const [facts, { facts: there }] = await Promise.all([look(ctx), ask(ctx, source)])
      const locations = (there.instance?.tablespaces ?? []).map((one) => one.location)
      if (locations.length === 0) return satisfied('there are no tablespaces')
      if (facts.dataDirectoryState === 'instance' && !isReclone) return satisfied('the copy is there already')
      const isBegun =
        isOwn(facts, ctx.node.cluster, ctx.node.settings.postgres.dataDir) && facts.mark?.phase !== 'done'
      const isSameHost = isSameMachine(ctx.node.settings, ctx.on(source).settings)
      const output = isSameHost
        ? locations.map((location) => `same-host\t${location}`).join('\n')
        : await ctx.node.output(
            shellScript('look for the tablespace folders', `${stateVariableScript}${tablespaceScript}`, [
              isBegun ? ctx.node.settings.stateDir : '/nonexistent',
              ...locations,
            ]),
          )
      const wrong = output
        .trim()
        .split('\n')
        .filter((line) => line !== '')
      if (wrong.length === 0) {
        return satisfied(`${locations.length} tablespace folder(s) are ready`)
      }
      const list = wrong.map((line) => line.split('\t').toReversed().join(' is ')).join('; ')
      const words = list
        .replaceAll('is same-host', 'is in use: both nodes are on one host')
        .replaceAll('is lost+found', 'is the top folder of a file system and holds lost+found')
      return refused(
        new ReplctlError('tablespace-unmapped', `${standby} has no place for the tablespaces of ${source}`, {
          detail: `${words}.`,
          hint: wrong.some((line) => line.startsWith('lost+found'))
            ? 'pg_basebackup fills only what is wholly empty. Remove lost+found for the time of the copy (rmdir; mklost+found makes it again), or mount a folder of that file system at the path (mount --bind).'
            : isReclone && wrong.every((line) => line.startsWith('not-empty'))
              ? `Its old copy is in the way. This sets that aside, too, until the new one streams: replctl rejoin ${standby} --reclone`
              : `Make each folder on ${standby}, empty and owned by ${ctx.node.settings.postgres.osUser}.`,
          node: standby,
        }),
      )
    },
  }
}

/** Only what the C library itself refuses: not every one has a list of what it takes. */
const localesScript = `
for name; do
  case $(LC_ALL=$name locale 2>&1 >/dev/null) in *'annot set'*) printf '%s\\n' "$name" ;; esac
done
`

/** The standby's host has the locales of the source's databases: without them a whole copy could not be opened there. */
export function requireLocales(standby: NodeName, source: NodeName, isReclone: boolean): Step {
  return {
    title: `require the locales of the databases of ${source}`,
    node: standby,
    check: async (ctx) => {
      const [facts, { sql }] = await Promise.all([look(ctx), ask(ctx, source)])
      const isWhole = facts.dataDirectoryState === 'instance' && !isBegunClone(ctx, facts)
      if (isWhole && !isReclone) return satisfied('the copy is there already')
      const names = await sql.json<string[]>(
        `SELECT coalesce(json_agg(DISTINCT name), '[]') FROM pg_database, unnest(ARRAY[datcollate, datctype]) name
          WHERE datallowconn AND name NOT IN ('C', 'POSIX')`,
      )
      if (names.length === 0) return satisfied('they need none')
      const output = await ctx.node.output(
        shellScript('try the locales of the databases', localesScript, names, { isQuick: true }),
      )
      const missing = output.split('\n').filter((name) => name !== '')
      if (missing.length === 0) return satisfied(names.join(', '))
      return refused(
        new ReplctlError('locale-missing', `${standby} lacks the locale ${missing.join(', ')}`, {
          detail: `Databases of ${source} use it: a copy of them cannot be opened on ${standby}.`,
          hint: 'Make it there: localedef, or on Debian: dpkg-reconfigure locales',
          node: standby,
        }),
      )
    },
  }
}

/** A standby that is the source of a clone has replayed what the upstream's slot keeps from now on. */
export function awaitReplayOf(source: NodeName, upstream: NodeName, slot: string): Step {
  const state = async (ctx: Parameters<Step['check']>[0]) => {
    const [{ facts: there }, { sql }] = await Promise.all([ask(ctx, upstream), ask(ctx, source)])
    const kept = there.instance?.slots.find((one) => one.name === slot)?.restartLsn ?? null
    if (kept === null) return { isReached: false, because: `slot "${slot}" is not there yet` }
    const isReached =
      (await sql.value(`SELECT (pg_last_wal_replay_lsn() >= '${kept}'::pg_lsn)::text`)) === 'true'
    return { isReached, because: `${isReached ? 'replayed' : 'not yet replayed'} ${kept}` }
  }
  return {
    title: `wait until ${source} has replayed what slot "${slot}" on ${upstream} keeps`,
    node: source,
    leavesClusterAlone: true,
    comesOfEarlier: true,
    check: async (ctx) => {
      const { isReached, because } = await state(ctx)
      return isReached ? satisfied(because) : { is: 'pending', because }
    },
    apply: async (ctx) => {
      let last = ''
      await awaitState(
        ctx,
        `${source} replays what the slot keeps`,
        async () => {
          const { isReached, because } = await state(ctx)
          last = because
          return isReached ? true : undefined
        },
        { last: () => `Last seen: ${last}.` },
      )
    },
  }
}
