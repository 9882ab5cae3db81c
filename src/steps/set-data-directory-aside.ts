import type { NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { rejoinUnderWay } from '../cluster/rejoin-under-way.ts'
import { describeRoom, tooSmall } from '../cluster/room.ts'
import { shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { stopJob } from '../node/jobs.ts'
import { measureRoom, readCopySize } from '../node/measure-room.ts'
import { stateScript } from '../node/node.ts'
import { readWalFiles } from '../node/own-wal.ts'
import { asItWillBe, emptied, recloned } from './as-it-will-be.ts'
import { removeStateFile, writeMark } from './ensure-mark.ts'
import { ask, binDirectoryOf, look, lookAnew } from './look.ts'
import { keptFolder, removeKeptFiles } from './prepare-rewind.ts'
import { realFolderScript } from './real-folder.ts'
import { isServerFileScript, requireStoppedScript } from './rejoin-scripts.ts'
import { type Lost, rewindJob, writeRejoinMark } from './rewind-data-directory.ts'
import { workLock } from './work-lock.ts'

/** In the name of what was set aside, with the time after it. */
export const asideMark = '.replctl-before-'

/**
 * Renames a stopped data directory, and beside their old places what its tablespaces and a linked pg_wal hold, so that
 * a clone finds all of them empty. The links of what was set aside lead to what was set aside: it stays a whole instance
 * at every moment, and is one afterwards. Where the data directory is a link itself, what it leads to is moved, and an empty folder
 * takes the place there. Nothing is ever copied: a rename across file systems is refused.
 */
export const setAsideScript = `${realFolderScript}
export LC_ALL=C
bin=$2 named=$3 data=$(real_folder "$3") id=$4 suffix=$5
${workLock}
device() { stat -L -c %d -- "$1" 2>/dev/null || stat -L -f %d -- "$1"; }
require_beside() {
  [ "$(device "$1")" = "$(device "$(dirname -- "$1")")" ] && [ -w "$(dirname -- "$1")" ] && return
  what='a mount point'
  [ ! -L "$1" ] || what='a link to another disk'
  echo "$1 is $what, or its parent is not writable" >&2
  exit 65
}
if [ -d "$data" ] && [ -f "$data/PG_VERSION" ]; then
  ${requireStoppedScript}
  major=$(cat "$data/PG_VERSION")
  require_beside "$data"
  if [ -L "$data/pg_wal" ]; then
    at=$(readlink -f -- "$data/pg_wal")
    require_beside "\${at%"$suffix"}"
  fi
  # All of them are looked at before the first is moved.
  for link in "$data"/pg_tblspc/*; do
    [ -L "$link" ] || continue
    at=$(readlink -- "$link")
    require_beside "\${at%"$suffix"}"
  done
  for link in "$data"/pg_tblspc/*; do
    [ -L "$link" ] || continue
    at=$(readlink -- "$link")
    case $at in *"$suffix") continue ;; esac
    mkdir -p -m 0700 -- "$at$suffix" || exit 73
    for part in "$at/PG_$major"_*; do [ -e "$part" ] && { mv -- "$part" "$at$suffix/" || exit 74; }; done
    ln -sfn -- "$at$suffix" "$link" || exit 74
  done
  if [ -L "$data/pg_wal" ]; then
    at=$(readlink -f -- "$data/pg_wal")
    case $at in *"$suffix") ;; *)
      mv -- "$at" "$at$suffix" && ln -sfn -- "$at$suffix" "$data/pg_wal" && mkdir -m 0700 -- "$at" || exit 74
    esac
  fi
  mv -- "$data" "$data$suffix" || exit 74
  [ ! -L "$named" ] || mkdir -m 0700 -- "$data" || exit 74
  sync -f "$(dirname -- "$data")" 2>/dev/null || sync
fi
[ -d "$data$suffix" ]
`

/** Takes {@link setAsideScript} back, however far it came: also where the data directory itself was not moved any more. */
export const putBackScript = `${realFolderScript}
data=$(real_folder "$2") suffix=$3
${workLock}
if [ -d "$data$suffix" ]; then
  rmdir -- "$data" 2>/dev/null
  [ -e "$data" ] && exit 65
  mv -- "$data$suffix" "$data" || exit 74
fi
[ -f "$data/PG_VERSION" ] || exit 0
for link in "$data"/pg_tblspc/*; do
  [ -L "$link" ] || continue
  at=$(readlink -- "$link")
  at=\${at%"$suffix"}
  [ -d "$at$suffix" ] || continue
  for part in "$at$suffix"/PG_*; do [ -e "$part" ] && { mv -- "$part" "$at/" || exit 74; }; done
  ln -sfn -- "$at" "$link" || exit 74
  rmdir -- "$at$suffix"
done
if [ -L "$data/pg_wal" ]; then
  at=$(readlink -f -- "$data/pg_wal")
  at=\${at%"$suffix"}
  if [ -d "$at$suffix" ]; then
    rm -rf -- "$at" && mv -- "$at$suffix" "$at" && ln -sfn -- "$at" "$data/pg_wal" || exit 74
  fi
fi
:
`

const placesScript = `${realFolderScript}
real_folder "$2"
[ -L "$2/pg_wal" ] && readlink -f -- "$2/pg_wal"
:
`

/** What setting aside appends to each name: a data directory that is a link has another name than what was moved. */
const suffixOf = (aside: string): string => aside.slice(aside.lastIndexOf(asideMark))

export interface AsideWish extends Lost {
  readonly node: NodeSettings
  readonly primary: NodeName
  /** Its old directory may go once the clone streams. */
  readonly isRedundant: boolean
}

export const setAsideTitle = 'move its data directory aside'

/** Puts the old data directory out of the way of a clone; it goes only after the clone streams. */
export function setDataDirectoryAside(wish: AsideWish): Step {
  const { node, primary, forkLsn, discardedBytes, isRedundant } = wish
  const { dataDir } = node.postgres
  return {
    title: setAsideTitle,
    node: node.name,
    check: async (ctx) => {
      const facts = await look(ctx)
      const rejoin = rejoinUnderWay(facts)
      if (rejoin?.method === 'reclone' && rejoin.aside !== null) {
        const command = shellScript(`look for ${rejoin.aside}`, '[ -d "$1" ] && echo there; :', [
          rejoin.aside,
        ])
        if ((await ctx.node.output(command)).trim() === 'there') return satisfied(`it is in ${rejoin.aside}`)
      }
      return facts.dataDirectoryState === 'missing' || facts.dataDirectoryState === 'empty'
        ? satisfied(`${dataDir} is ${facts.dataDirectoryState}`)
        : pending(`${dataDir} holds the old instance`)
    },
    apply: async (ctx) => {
      const { facts: there } = await ask(ctx, primary)
      // That of an earlier run lives on without it, and would go on writing into the clone that takes this place.
      await stopJob(ctx.node, rewindJob)
      const facts = await lookAnew(ctx)
      // They are back in their places since: those may have been changed again.
      if (facts.rejoin?.phase === 'whole') await removeKeptFiles(ctx)
      const before = facts.rejoin?.method === 'reclone' ? facts.rejoin.aside : null
      const untold = facts.rejoin?.phase === 'whole' ? facts.rejoin.method : facts.rejoin?.untold
      const { bootId } = await readWalFiles(ctx.node, facts)
      const places = stateScript(ctx.node, 'look where it and its pg_wal lie', placesScript, [dataDir])
      const [real = dataDir, found = ''] = (await ctx.node.output(places)).trim().split('\n')
      const aside = before ?? `${real}${asideMark}${stamp()}`
      await writeRejoinMark(ctx, node.name, {
        ...{
          method: 'reclone',
          source: primary,
          timeline: there.instance?.timeline ?? 0,
          phase: 'recloning',
        },
        ...{ bootId, forkLsn, discardedBytes, aside, at: new Date().toISOString() },
        ...(untold === undefined ? {} : { untold }),
        // An earlier run that was to keep it is not overruled by one that goes on.
        isRedundant: isRedundant && (before === null || facts.rejoin?.isRedundant !== false),
        walDirectory:
          found === '' || found.includes(asideMark) ? (facts.rejoin?.walDirectory ?? null) : found,
      })
      const script = stateScript(ctx.node, `move ${dataDir} aside`, setAsideScript, [
        ...[binDirectoryOf(facts), dataDir, there.instance?.systemIdentifier ?? ''],
        suffixOf(aside),
      ])
      const moved = await ctx.node.run(script, { timeoutMs: 120_000 })
      if (moved.status === 0) return
      const back = [dataDir, suffixOf(aside)]
      await ctx.node.output(stateScript(ctx.node, `put ${dataDir} back`, putBackScript, back))
      // What a rewind had begun to change is no whole instance: the mark that says so stays.
      if (facts.rejoin === null) await removeStateFile(ctx, node.name, 'rejoin.json')
      else await writeRejoinMark(ctx, node.name, facts.rejoin)
      throw cannotSetAside(node.name, dataDir, moved.stderr)
    },
    verify: async (ctx) => {
      const { dataDirectoryState } = await look(ctx)
      if (dataDirectoryState === 'instance') throw cannotSetAside(node.name, dataDir, 'It is still there.')
    },
    undo: async (ctx) => {
      const { rejoin } = await look(ctx)
      if (rejoin?.method !== 'reclone' || rejoin.aside === null) return
      const args = [dataDir, suffixOf(rejoin.aside)]
      await ctx.node.output(stateScript(ctx.node, `put ${dataDir} back`, putBackScript, args))
      const facts = await lookAnew(ctx)
      const { untold: method } = rejoin
      const whole = { phase: 'whole', aside: null, inode: facts.dataDirectoryInode } as const
      if (method === undefined) await removeStateFile(ctx, node.name, 'rejoin.json')
      else await writeRejoinMark(ctx, node.name, { ...rejoin, method, ...whole })
      if (facts.mark === null && facts.dataDirectoryState === 'instance') {
        await writeMark(ctx, facts, 'done', facts.control?.systemIdentifier ?? '')
      }
    },
  }
}

/** What makes the clone: a plan sees the place of the data directory free, as it will be by then. */
export const afterSettingAside = (step: Step): Step =>
  asItWillBe(step, async (ctx) => ((await isOld(ctx)) ? emptied : null))

/** What makes a standby of the clone, which has the node's own files by then. */
export const afterRecloning = (step: Step): Step =>
  asItWillBe(step, async (ctx) => ((await isOld(ctx)) ? recloned : null))

/** It is still the old directory that stands in its place. */
async function isOld(ctx: StepContext): Promise<boolean> {
  const facts = await look(ctx)
  const isBegun = rejoinUnderWay(facts) !== null || facts.mark?.phase === 'cloning'
  return facts.dataDirectoryState === 'instance' && !isBegun
}

/** A rewind that came to nothing has put the source's files over the node's own: those were kept before it began. */
const takeOverScript = `
export LC_ALL=C
umask 077
data=$2 target=$3
[ -f "$data/PG_VERSION" ] || exit 0
kept="$state/${keptFolder}"
if [ -e "$kept/complete" ]; then data="$kept/files"; fi
${isServerFileScript}
own_names | while IFS= read -r name; do
  is_log "$name" && continue
  rm -rf -- "$target/$name" && cp -a -- "$data/$name" "$target/" || exit 74
done || exit 74
sync -f "$target" 2>/dev/null || sync
`

/** The node's own configuration, keys and whatever else lay at the top of its old data directory, in the new one. */
export function takeOwnFilesOver({ name, postgres: { dataDir } }: NodeSettings): Step {
  return {
    title: "take the node's own files over from the old data directory: configuration, keys",
    node: name,
    check: async (ctx) => {
      const { rejoin, mark, instance } = await look(ctx)
      if (rejoin?.aside == null)
        return ctx.isDryRun ? unknownUntil('it is moved aside') : satisfied('there is none')
      return mark?.phase === 'done' || instance !== null
        ? satisfied('the new one is complete')
        : pending(`they are in ${rejoin.aside}`)
    },
    apply: async (ctx) => {
      const { rejoin } = await look(ctx)
      if (rejoin?.aside == null) return
      const script = stateScript(ctx.node, "take the node's own files over", takeOverScript, [
        ...[rejoin.aside, dataDir],
      ])
      await ctx.node.output(script, { timeoutMs: 600_000 })
    },
    verify: async () => undefined,
  }
}

/** There is room for a second copy: the old one stays until the new one streams. */
export function requireRoomForSecondCopy(node: NodeName, source: NodeName): Step {
  return {
    title: `require disk space for a copy of ${source} beside the old one`,
    node,
    check: async (ctx) => {
      const [facts, { sql }] = await Promise.all([look(ctx), ask(ctx, source)])
      if (rejoinUnderWay(facts)?.method === 'reclone') return satisfied('the copy has begun already')
      const rooms = await measureRoom(ctx.node, await readCopySize(sql), false)
      if (rooms.length === 0) return satisfied('free space is unknown')
      const [short] = tooSmall(rooms)
      if (short === undefined) return satisfied(rooms.map(describeRoom).join('; '))
      return refused(
        new ReplctlError('disk-full', `${node} has no room for a second copy beside the old one`, {
          detail: `${describeRoom(short)}. The old data directory goes only after the new one streams.`,
          hint: `Free some space there, or move the old data directory to another file system yourself, then: replctl add-standby ${node}`,
          node,
        }),
      )
    },
  }
}

const stamp = (): string => new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '')

function cannotSetAside(node: NodeName, dataDir: string, said: string): ReplctlError {
  return new ReplctlError('data-directory-in-use', `could not move ${dataDir} on ${node} aside`, {
    detail: said.trim(),
    hint: `Move what is in it elsewhere yourself, so that it is empty, then: replctl add-standby ${node}`,
    node,
  })
}
