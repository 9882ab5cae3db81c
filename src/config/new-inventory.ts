import { lstat, open, rm } from 'node:fs/promises'
import { isIP } from 'node:net'
import { parse } from 'yaml'
import { slotNameFor } from '../cluster/replication-names.ts'
import { ReplctlError } from '../errors.ts'
import { clusterNameField, findHostFault, nodeNamePattern } from './fields.ts'

export interface NewInventoryOptions {
  readonly cluster: string
  readonly hosts: readonly string[]
  /** Major version. */
  readonly version?: number | undefined
}

/**
 * An inventory to start from: it can be used as it is, and shows what else can be set.
 * @throws {ReplctlError} `usage` if the cluster's name or a host cannot be used
 */
export function newInventoryText({ cluster, hosts, version }: NewInventoryOptions): string {
  refuseUnusable(cluster, hosts)
  const names = nameNodes(cluster, hosts)
  const nodes = hosts.map((host, index) => `  ${asYaml(names[index]!)}: { host: ${asYaml(host)} }\n`).join('')
  return `\
# The nodes of a PostgreSQL cluster, and wishes about them. Which node is the primary is never written here:
# replctl observes it. Commented lines show the default or an example. All keys: replctl schema

cluster: ${asYaml(cluster)}

postgres:
  ${version === undefined ? '# version: 15                    # default: detected on the nodes' : `version: ${version}`}
  # bin_dir: /usr/lib/postgresql/15/bin    # default: detected on the nodes
  data_dir: /var/lib/postgresql/${version ?? 15}/${cluster}
  port: 5432
  # os_user: postgres
  # database: postgres               # where replctl connects and verifies
  # service: auto                    # auto, pg_ctl, pg_ctlcluster, systemd, or { start: "…", stop: "…" }
  # parameters:                      # any PostgreSQL parameter
  #   shared_buffers: 256MB
  # hba:                             # further pg_hba.conf lines, for clients
  #   - host all all 10.0.0.0/8 scram-sha-256

# ssh:                               # ~/.ssh/config, ssh-agent and known_hosts are honoured
#   user: postgres                   # or root, or a user with password-less sudo
#   port: 22
#   identity_file: ~/.ssh/id_ed25519
#   host_key_policy: strict          # strict, accept-new; a changed key is always refused
#   connect_timeout: 5s

replication:
  user: replicator
  # password_file: ./replicator.pw   # or $REPLCTL_REPLICATION_PASSWORD; default: generated
  mode: async                        # async, sync (the first by priority confirm), quorum (any confirm)
  # sync_standbys: 1                 # how many must confirm
  # slots: true
  # max_slot_wal_keep_size: 10GB     # most WAL that a lost standby may hold back on the primary
  # max_candidate_lag: 16MB          # a switchover to a standby further behind is refused

nodes:                               # any key of postgres, and an ssh block, can be given in a node too
${nodes}\
  # name: { host: 10.0.0.14, address: 192.168.0.14, upstream: ${asYaml(names[0]!)}, delay: 1h, priority: 100, promotable: false }

# archive:                           # where WAL and base backups are kept
#   host: backup1                    # a node's name or a host of its own
#   dir: /var/lib/replctl/${cluster}
#   mode: push                       # push (archive_command over SSH), stream (pg_receivewal on the archive host)
#   synchronous: false               # stream only: in sync and quorum mode it confirms commits as a standby does
#   compression: auto                # auto, none, gzip, lz4, zstd
#   max_backup_age: 25h              # status finds a problem when the newest verified backup is older

# hooks:
#   on_event: ./notify.sh            # on this host, with one JSON event on standard input

# fence:                             # makes sure that an old primary which cannot be reached is off
#   command: ./fence.sh {node}       # exit code 0: it is off or cannot write
`
}

/**
 * Writes a new inventory; an existing file is never overwritten.
 * @throws {ReplctlError} `inventory-exists`; `usage` if it cannot be written there
 */
export async function writeNewInventory(path: string, text: string): Promise<void> {
  try {
    const file = await open(path, 'wx')
    try {
      await file.writeFile(text)
    } catch (thrown) {
      // A file without its text would be in the way of the next try.
      await rm(path, { force: true })
      throw thrown
    } finally {
      await file.close()
    }
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (code === 'EEXIST') throw existsAlready(path)
    throw new ReplctlError('usage', `could not write ${path}`, {
      detail: `The system says ${code}.`,
      cause: thrown,
    })
  }
}

/** What {@link writeNewInventory} would refuse. @throws {ReplctlError} `inventory-exists` */
export async function refuseToOverwrite(path: string): Promise<void> {
  const isThere = await lstat(path).then(
    () => true,
    () => false,
  )
  if (isThere) throw existsAlready(path)
}

function existsAlready(path: string): ReplctlError {
  const hint = 'Remove it first, or name another file with --config.'
  return new ReplctlError('inventory-exists', `${path} exists already`, { hint })
}

function refuseUnusable(cluster: string, hosts: readonly string[]): void {
  const issue = clusterNameField().safeParse(cluster).error?.issues[0]
  if (issue) {
    const hint = 'It starts with a small letter and has at most 31 small letters, digits, _ and -.'
    throw new ReplctlError('usage', issue.message, { hint })
  }
  if (hosts.length === 0)
    throw new ReplctlError('usage', 'no host given', { hint: 'Name at least one with --hosts.' })
  for (const [index, host] of hosts.entries()) {
    const fault = findHostFault(host)
    if (fault) throw new ReplctlError('usage', fault.message, { hint: fault.hint })
    if (hosts.slice(0, index).some((other) => other.toLowerCase() === host.toLowerCase())) {
      throw new ReplctlError('usage', `host ${host} is given twice`)
    }
  }
}

/** The short host names where they tell the nodes apart, else pg1, pg2, … */
function nameNodes(cluster: string, hosts: readonly string[]): string[] {
  const shortNames = hosts.map((host) => host.split('.')[0] ?? '')
  const slots = new Set(shortNames.map((name) => slotNameFor(cluster, name)))
  const areUsable = hosts.every((host) => !isIP(host) && host !== 'local') && shortNames.every(isNodeName)
  return areUsable && slots.size === hosts.length ? shortNames : hosts.map((_, index) => `pg${index + 1}`)
}

function isNodeName(name: string): boolean {
  return nodeNamePattern.test(name)
}

/** Quotes what YAML would not read as this very text: `fd00::`, `null`, `1e5`. */
function asYaml(text: string): string {
  const isPlain = /^[\w.-]+$/.test(text) && parse(text) === text
  return isPlain ? text : JSON.stringify(text)
}
