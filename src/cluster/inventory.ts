import type { Secret } from '../command.ts'
import type { NodeName } from './names.ts'

export const serviceKinds = ['auto', 'pg_ctl', 'pg_ctlcluster', 'systemd'] as const
export type ServiceKind = (typeof serviceKinds)[number]
export interface ServiceCommands {
  readonly start: string
  readonly stop: string
  readonly restart?: string | undefined
  readonly reload?: string | undefined
}

export const replicationModes = ['async', 'sync', 'quorum'] as const
export type ReplicationMode = (typeof replicationModes)[number]

export const compressions = ['auto', 'none', 'gzip', 'lz4', 'zstd'] as const
export type Compression = (typeof compressions)[number]

/** PostgreSQL's part of a node, defaults and the node's own overrides applied. */
export interface PostgresSettings {
  /** Major version, e.g. 15; undefined: detected. */
  readonly version: number | undefined
  readonly binDir: string | undefined
  readonly dataDir: string
  readonly port: number
  readonly osUser: string
  /** Where replctl connects and verifies. */
  readonly database: string
  readonly service: ServiceKind | ServiceCommands
  /** PostgreSQL parameter → value as text, e.g. `shared_buffers` → `256MB`, `fsync` → `off`. */
  readonly parameters: Readonly<Record<string, string>>
  /** Further pg_hba.conf lines, verbatim. */
  readonly hba: readonly string[]
}

/** How a host is logged into, defaults and the node's own overrides applied; `~` expanded, paths absolute. */
export interface SshSettings {
  /** Undefined: ~/.ssh/config decides, else the PostgreSQL OS user. */
  readonly user: string | undefined
  /** Undefined: ~/.ssh/config decides, else 22. */
  readonly port: number | undefined
  readonly identityFile: string | undefined
  /** Undefined: ~/.ssh/config where there is one. */
  readonly configFile: string | undefined
  /** Undefined: as ssh_config says, else ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts. */
  readonly knownHosts: string | undefined
  readonly hostKeyPolicy: 'strict' | 'accept-new'
  readonly connectTimeoutMs: number
}

export interface NodeSettings {
  readonly name: NodeName
  /** What replctl logs into; `local`: this machine, without SSH. */
  readonly host: string
  /** What other nodes use to reach it. */
  readonly address: string
  readonly postgres: PostgresSettings
  readonly ssh: SshSettings
  /** Wished upstream; undefined: the primary. */
  readonly upstream: NodeName | undefined
  /** Wished replay delay. */
  readonly delayMs: number
  readonly priority: number
  readonly promotable: boolean
  /** Name of its replication slot, e.g. `shop_pg2`; unique in the cluster. */
  readonly slotName: string
  /** e.g. `shop_pg2`; at most 63 bytes, unique in the cluster. */
  readonly applicationName: string
  /** Where replctl keeps its files there: absolute, or relative to the OS user's home, e.g. `.replctl/shop`. */
  readonly stateDir: string
}

export interface ReplicationSettings {
  readonly user: string
  /** From password_file or $REPLCTL_REPLICATION_PASSWORD; undefined: made by `init primary`. */
  readonly password: Secret | undefined
  readonly mode: ReplicationMode
  readonly syncStandbys: number
  readonly slots: boolean
  /** As written, e.g. `10GB`. */
  readonly maxSlotWalKeepSize: string
  readonly maxCandidateLagBytes: number
}

export interface ArchiveSettings {
  /** Set where `host` names a node of the cluster. */
  readonly node: NodeName | undefined
  readonly host: string
  /** What nodes use to reach it. */
  readonly address: string
  readonly user: string
  readonly port: number
  readonly dir: string
  readonly mode: 'push' | 'stream'
  /** With `stream`, in sync and quorum mode: the archive confirms commits as a standby does. */
  readonly synchronous: boolean
  readonly compression: Compression
  /** An older newest backup is a problem of `status`; null: no limit. */
  readonly maxBackupAgeMs: number | null
  readonly ssh: SshSettings
}

/** The cluster file, read, checked and defaulted. Live roles are never in it: they are observed. */
export interface Inventory {
  /** Absolute path of the file. */
  readonly path: string
  /** The file's folder: relative paths, fence and hook commands start there. */
  readonly folder: string
  readonly cluster: string
  /** In the file's order. */
  readonly nodes: readonly NodeSettings[]
  readonly replication: ReplicationSettings
  readonly archive: ArchiveSettings | undefined
  /** Command line with `{node}` and `{host}` still in it. */
  readonly fenceCommand: string | undefined
  readonly onEvent: string | undefined
}
