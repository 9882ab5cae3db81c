import type { ReplctlError } from '../errors.ts'
import type { NodeFacts } from './facts.ts'
import type { NodeSettings } from './inventory.ts'
import type { CopySize, Room } from './room.ts'

/** What `doctor` tries on a host beyond the survey. */
export interface HostProbe {
  /** Who replctl is logged in as there. */
  readonly loginUser: string
  /** Host clock minus control host clock, ms; null where `date` cannot say. */
  readonly clockOffsetMs: number | null
  /** How far off that may be, ms: half the round trip. */
  readonly clockDoubtMs: number
  /** Of the programs that the node's PostgreSQL should have. */
  readonly missingPrograms: readonly string[]
  /** Of the tools that replctl's scripts use, e.g. `flock`, `sync -f`. */
  readonly missingTools: readonly string[]
  readonly locales: readonly string[]
  /** The nearest folder above the data directory (or itself) that exists, and whether we may write there. */
  readonly place: { readonly path: string; readonly isWritable: boolean }
  /** The data directory is there and holds lost+found: the top folder of a file system. */
  readonly hasLostFound: boolean
  /** The folder that keeps replctl's state (or the nearest one that exists), where it cannot be written; null: it can be. */
  readonly noState: string | null
  /** Free space where WAL and replctl's state lie, which may be other file systems than that of the data. */
  readonly rooms: readonly {
    readonly path: string
    readonly mountPoint: string
    readonly freeBytes: number
  }[]
  /** Who listens on the node's port: nobody, a data directory, or something else. */
  readonly listener: { readonly dataDirectory: string | null } | null
  /** Whether sshd forwards to a unix socket; null: cannot be tried, or is not needed. */
  readonly forwards: boolean | null
  /** Why root is not to be had where the service needs it; null: it is, or is not needed. */
  readonly rootRefusal: string | null
  /** What starts and stops the instance, e.g. `pg_ctl`; null where no programs were found. */
  readonly service: string | null
  /** What the start guard said when it was run as a trial; null where there is none yet. */
  readonly guard: { readonly works: boolean; readonly said: string } | null
}

/** How one node reaches another one's PostgreSQL port. */
export interface Reach {
  readonly from: string
  readonly to: string
  readonly address: string
  readonly port: number
  /** A replication login with the node's own passfile, or only whether something answers. */
  readonly isLogin: boolean
  readonly outcome: 'logged-in' | 'answers' | 'refused' | 'silent' | 'unresolved' | 'rejected' | 'no-psql'
  /** What psql said. */
  readonly said: string
}

/** What the running primary needs on every node. */
export interface PrimaryNeeds {
  readonly size: CopySize
  readonly locales: readonly string[]
}

/** The running primary, and where a copy of it would lie on each node that is not built yet. */
export interface ExaminedPrimary {
  readonly name: string
  readonly needs: PrimaryNeeds
  readonly rooms: ReadonlyMap<string, readonly Room[]>
}

/** One node as `doctor` saw it; `probe` is null where the host could not be reached. */
export interface ExaminedNode {
  readonly settings: NodeSettings
  readonly facts: NodeFacts
  readonly probe: HostProbe | null
  /** Why a host that answers could not be tried: it is too busy. */
  readonly probeError?: ReplctlError | undefined
}
