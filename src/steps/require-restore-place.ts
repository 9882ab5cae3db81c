import { restoreSize } from '../cluster/restore-room.ts'
import { describeRoom, tooSmall } from '../cluster/room.ts'
import { shellScript } from '../command.ts'
import { refused, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { measureRoom } from '../node/measure-room.ts'
import { stateVariableScript } from '../node/node.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { findBackupPrograms } from './backup-programs.ts'
import { look } from './look.ts'
import { suitableBinaries } from './require-binaries.ts'
import { isSame, ownRecord, type Restore, type RestoreRecord } from './restore-record.ts'
import { chainPlaceScript, lookAtTargetScript } from './restore-scripts.ts'

/** Where the tablespaces of a backup go: to their own places, or below a directory that stands apart. */
export function tablespacesOf({ choice, isMember }: Restore, dataDir: string): ReadonlyMap<string, string> {
  return new Map(
    choice.backup.tablespaces.map(({ oid, location }) => [
      oid,
      isMember ? location : `${dataDir}/replctl_tablespaces/${oid}`,
    ]),
  )
}

/** The programs of the backup's own major version are there. */
export function requireRestorePrograms(restore: Restore): Step {
  const { backup, chain } = restore.choice
  const needed = [
    ...(capabilitiesOf(backup.major).backupManifest ? ['pg_verifybackup'] : []),
    ...(chain.length > 1 ? ['pg_combinebackup'] : []),
  ]
  return {
    title: `require the programs of PostgreSQL ${backup.major}`,
    node: restore.at,
    check: async (ctx) => {
      const own = suitableBinaries(await look(ctx), backup.major)
      const programs = await findBackupPrograms(ctx.node, backup.major)
      const missing = needed.filter((name) => !programs.names.includes(name))
      if (own !== null && missing.length === 0)
        return satisfied(`PostgreSQL ${own.version} in ${own.directory}`)
      return refused(
        own === null
          ? new ReplctlError(
              'version-mismatch',
              `${restore.node.name} has no programs of PostgreSQL ${backup.major}`,
              {
                detail: `Backup ${backup.id} is of PostgreSQL ${backup.postgresVersion}; only the same major version can run it.`,
                hint: `Install PostgreSQL ${backup.major} on ${restore.node.name}, or set its bin_dir in the inventory.`,
                node: restore.node.name,
              },
            )
          : new ReplctlError('binaries-missing', `${restore.node.name} lacks ${missing.join(', ')}`, {
              hint: `Install the programs of PostgreSQL ${backup.major} there.`,
              node: restore.node.name,
            }),
      )
    },
  }
}

/** The directory is missing or empty, its tablespaces' places too, or it is what this restore began. */
export function requireRestoreTarget(restore: Restore): Step {
  return {
    title: 'require an empty place for the instance and its tablespaces',
    node: restore.at,
    check: async (ctx) => {
      const { dataDir } = ctx.node.settings.postgres
      const facts = await look(ctx)
      const record = await ownRecord(ctx)
      if (record?.phase === 'opened' && !isSame(record, restore)) return refused(isOpened(restore, record))
      if (record !== null) return satisfied(`${dataDir} was begun by replctl`)
      if (facts.postmaster?.isAlive === true) {
        return refused(
          new ReplctlError('data-directory-in-use', `a server runs in ${dataDir} on ${restore.node.name}`, {
            detail: `Its postmaster has pid ${facts.postmaster.pid}.`,
            hint: restore.isMember
              ? `To restore beside it: replctl restore ${restore.node.name} --data-dir DIR`
              : 'Name another --data-dir.',
            node: restore.node.name,
          }),
        )
      }
      const spaces = [...tablespacesOf(restore, dataDir).values()]
      const own = restore.isMember ? spaces : []
      const found = await ctx.node.output(
        shellScript(`look at ${dataDir}`, lookAtTargetScript, [
          ...[dataDir, restore.choice.chain.length > 1 ? 'yes' : 'no'],
          ...own,
        ]),
      )
      const wrong = found.trim().split('\n').filter(Boolean)
      return wrong.length === 0 ? satisfied(`${dataDir} is free`) : refused(notFree(restore, dataDir, wrong))
    },
  }
}

/** Applications may have written to it since: it is somebody's data now, not the remains of a restore. */
function isOpened({ node }: Restore, record: RestoreRecord): ReplctlError {
  return new ReplctlError('foreign-data-directory', `another restore was opened on ${node.name}`, {
    detail: `Backup ${record.backup} was restored there to ${record.target}, along timeline ${record.timeline}, and may have been written to since.`,
    hint: `The same command again brings that one to its end. To restore anew, stop it and move ${node.postgres.dataDir} aside yourself.`,
    node: node.name,
  })
}

export function notFree(restore: Restore, dataDir: string, wrong: readonly string[]): ReplctlError {
  const [kind = '', what = ''] = wrong[0]?.split('\t') ?? []
  const node = restore.node.name
  if (kind === 'tablespace') {
    return new ReplctlError('tablespace-unmapped', `there is no place on ${node} for a tablespace`, {
      detail: `${wrong.map((line) => line.split('\t')[1]).join('; ')}.`,
      hint: `Make it an empty folder that belongs to the OS user, or restore beside: replctl restore ${node} --data-dir DIR`,
      node,
    })
  }
  const words: Readonly<Record<string, string>> = {
    inside: `It lies inside ${what}, which is a PostgreSQL data directory.`,
    instance: 'It holds a PostgreSQL instance.',
    'not-empty': `${what} is not empty.`,
    unusable: 'It is no directory that the OS user may use.',
    root: `${what} is the root of a file system (lost+found lies in it), and pg_combinebackup, which joins the incremental backup, fills only what is empty.`,
    'not-writable': `${what} is not writable for the OS user.`,
  }
  // WAL since the backup may make a tablespace again that the backup lacks: over the files which the old one has there.
  const spaces = wrong.map((line) => line.split('\t')).filter(([one]) => one === 'space')
  const paths = spaces.map(([, path = '']) => path)
  const aside = [dataDir, ...(restore.isMember ? paths : [])].map((path) => `mv ${path} ${path}.old`)
  return new ReplctlError('foreign-data-directory', `${dataDir} on ${node} is not free for a restore`, {
    detail: `${words[kind] ?? what} replctl never overwrites one: it may be the last copy.`,
    hint:
      kind === 'instance' || kind === 'not-empty'
        ? `If it is of no use any more, move it aside yourself${aside.length > 1 ? ', with its tablespaces' : ''}: ${aside.join('; ')}`
        : 'Name another directory.',
    node,
  })
}

/** Where a chain is unpacked: beside the data directory, where its disk is; where nothing can be made there, with replctl's state. */
async function chainPlaceOf({ node }: StepContext): Promise<string> {
  const script = `${stateVariableScript}${chainPlaceScript}chain_of "$2" "$state"; printf %s "$chain"`
  const { stateDir, postgres } = node.settings
  return await node.output(shellScript('look for a place', script, [stateDir, postgres.dataDir]))
}

/** Each file system has room for what is restored onto it. */
export function requireRoomForRestore(restore: Restore): Step {
  return {
    title: 'require disk space for the restored data',
    node: restore.at,
    check: async (ctx) => {
      if ((await ownRecord(ctx)) !== null) return satisfied('it was begun already')
      const { dataDir } = ctx.node.settings.postgres
      const spaces = restore.isMember ? tablespacesOf(restore, dataDir) : new Map<string, string>()
      const size = restoreSize(
        restore.choice.chain,
        (oid) => spaces.get(oid) ?? null,
        await chainPlaceOf(ctx),
      )
      const rooms = await measureRoom(ctx.node, size, false)
      const [small] = tooSmall(rooms)
      if (small === undefined) return satisfied(rooms.map(describeRoom).join('; '))
      return refused(
        new ReplctlError('disk-full', `${restore.node.name} has no room for the restored data`, {
          detail: `${describeRoom(small)}.`,
          hint: `Free some space there, or restore beside: replctl restore ${restore.node.name} --data-dir DIR`,
          node: restore.node.name,
        }),
      )
    },
  }
}
