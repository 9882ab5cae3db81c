import type { ReplctlError } from '../errors.ts'
import type { ArchiveError } from '../postgres/archive.ts'
import type { ControlData } from '../postgres/control-data.ts'
import type { Lsn, TimelineId } from '../postgres/lsn.ts'
import type { NodeName } from './names.ts'

/** What stands where the inventory says the data directory is. */
export const dataDirectoryStates = ['missing', 'empty', 'instance', 'not-an-instance'] as const
export type DataDirectoryState = (typeof dataDirectoryStates)[number]

/** PostgreSQL programs found on a host. */
export interface InstalledBinaries {
  /** e.g. `/usr/lib/postgresql/15/bin` */
  readonly directory: string
  readonly major: number
  readonly minor: number
  /** e.g. `15.18` */
  readonly version: string
}

/** A postmaster that has this data directory, alive or not. */
export interface PostmasterFacts {
  readonly pid: number
  /** The process exists and its working directory is this data directory. */
  readonly isAlive: boolean
  /** The kernel says it is stopped (SIGSTOP, a frozen cgroup). */
  readonly isFrozen: boolean
  readonly port: number | null
  readonly socketDirectory: string | null
  /** As in postmaster.pid: `ready`, `standby`, `starting`, `stopping`. */
  readonly status: string
}

/** replctl's own mark on a node: which node this data directory is. */
export interface NodeMark {
  readonly cluster: string
  readonly node: string
  readonly dataDirectory: string
  /** Empty until the data directory has one. */
  readonly systemIdentifier: string
  /** Inode of the data directory; tells a replaced directory from the one that replctl made. */
  readonly inode: string
  /** What was being built when it was written; `done` once the node is complete. */
  readonly phase: 'initialising' | 'cloning' | 'cloned' | 'done'
}

/** What replctl last made of the cluster, kept on every node: who leads, who belongs to it. */
export interface ClusterRecord {
  readonly systemIdentifier: string
  readonly primary: NodeName
  readonly timeline: number
  readonly members: readonly NodeName[]
  /** Grows with each change of roles. */
  readonly generation: number
  /** The primary's own service asks the others before it starts the server there. */
  readonly isPrimaryGuarded?: boolean
  /** Standbys that had to confirm a commit of the primary when this was written, as it was in force there; 0: none. */
  readonly confirmations?: number
  /**
   * application_name of each that its commits may have waited for, written before it is in force: no other standby can have
   * confirmed one. Absent in what an older replctl wrote.
   */
  readonly confirmers?: readonly string[]
  /**
   * Slots of replctl's own whose standby was taken out: a node that was away then may have one still, when no inventory names it
   * any more.
   */
  readonly removedSlots?: readonly string[]
}

/** Written by `promote` on the old primary: it must not come up read-write. */
export interface FenceMark {
  readonly newPrimary: string
  readonly timeline: number
  readonly at: string
  /** It ran when the fencing began: taking that back starts it again. */
  readonly wasRunning?: boolean
  /** It was stopped as a standby that had been told to promote: its signal is its own, and stays when that is taken back. */
  readonly wasStandby?: boolean
  /** It was fenced for another one before: taking this fencing back leaves that one as it was. */
  readonly before?: Omit<FenceMark, 'before'>
}

/**
 * Left on a node while `rejoin` replaces what is in its data directory: until it is gone, that directory is no whole
 * instance, and must neither be started nor be taken for one.
 */
export interface RejoinMark {
  readonly method: 'rewind' | 'reclone'
  /** Whose data it gets, and the timeline that one was on: another source's blocks must not be mixed in. */
  readonly source: string
  readonly timeline: number
  /**
   * `rewound`: pg_rewind came to its end, and the node's own files are to be put back. `whole`: what stands in its place is an
   * instance again, to be judged by what it holds; what was discarded is still to be told.
   */
  readonly phase: 'rewinding' | 'rewound' | 'recloning' | 'whole'
  /** Of the kernel: what pg_rewind had written before a reboot may not have reached the disk. */
  readonly bootId: string
  readonly forkLsn: string | null
  /** Of the node's own WAL, as far as it was known before it went. Absent in marks of earlier versions. */
  readonly discardedBytes?: number | null
  /** How an earlier rejoin had discarded it, and did not come to tell: where this one is taken back that is still so. */
  readonly untold?: RejoinMark['method']
  /** Where the old data directory lies meanwhile; null: it is changed in place. */
  readonly aside: string | null
  /** Of the directory that is rewound, or that became whole: one that took its place is not the one that this speaks of. */
  readonly inode?: string
  /** Where pg_wal lies, where that is a link. */
  readonly walDirectory: string | null
  /** Nothing of the old directory's own is lost when it goes: it held nothing, or all of it was salvaged. */
  readonly isRedundant: boolean
  readonly at: string
}

/** One row of pg_stat_replication. */
export interface ReplicationConnection {
  readonly applicationName: string
  readonly clientAddress: string | null
  readonly state: string
  readonly syncState: string
  readonly sentLsn: Lsn | null
  readonly flushLsn: Lsn | null
  readonly replayLsn: Lsn | null
}

/** One row of pg_replication_slots. */
export interface ReplicationSlot {
  readonly name: string
  readonly type: 'physical' | 'logical'
  readonly isActive: boolean
  readonly isTemporary: boolean
  /** Logical, and copied to standbys (17 and newer). */
  readonly isFailover: boolean
  /** Such a copy. */
  readonly isSynced: boolean
  readonly restartLsn: Lsn | null
  /** `reserved`, `extended`, `unreserved`, `lost`; null before 13 or where nothing is reserved. */
  readonly walStatus: string | null
  readonly invalidationReason: string | null
}

export interface WalReceiver {
  readonly status: string
  readonly senderHost: string | null
  readonly senderPort: number | null
  readonly slotName: string | null
  readonly receivedTimeline: TimelineId | null
  readonly latestEndLsn: Lsn | null
  /** Seconds since the last message of the sender, by the standby's own clock. */
  readonly silenceSeconds: number | null
}

export interface Setting {
  readonly value: string
  readonly source: string
  readonly sourceFile: string | null
  readonly isPendingRestart: boolean
}

export interface Archiver {
  readonly archivedCount: number
  readonly failedCount: number
  readonly lastArchivedWal: string | null
  readonly lastFailedWal: string | null
  /** The last attempt failed. */
  readonly isFailing: boolean
  /** Finished WAL files that wait to be archived (`.ready`); 0 where archiving is off. */
  readonly readyCount: number
  /** The first of them, and for how long it has been waiting. */
  readonly oldestReady: string | null
  readonly oldestReadySeconds: number | null
  /** Since the last success; null where there was none since the statistics were reset. */
  readonly lastArchivedSeconds: number | null
}

export interface Tablespace {
  readonly name: string
  readonly location: string
}

/** What a running instance says of itself by SQL. */
export interface InstanceFacts {
  readonly serverVersionNumber: number
  readonly systemIdentifier: string
  readonly isInRecovery: boolean
  readonly timeline: TimelineId
  /** Primary: current insert position's WAL location. */
  readonly currentLsn: Lsn | null
  readonly receiveLsn: Lsn | null
  readonly replayLsn: Lsn | null
  /** Age of the last replayed transaction; 0 when it streams and everything received is replayed. */
  readonly replayLagSeconds: number | null
  /** The same age, whatever its walreceiver says. */
  readonly lastReplayedSeconds: number | null
  readonly isReplayPaused: boolean
  /** It holds a commit back for recovery_min_apply_delay. Until then it asks nobody for WAL if its walreceiver ended. */
  readonly isAwaitingDelay: boolean
  readonly receiver: WalReceiver | null
  readonly replication: readonly ReplicationConnection[]
  readonly slots: readonly ReplicationSlot[]
  readonly settings: Readonly<Record<string, Setting>>
  readonly archiver: Archiver | null
  readonly tablespaces: readonly Tablespace[]
  /** Text of the current timeline's history file; null on timeline 1 or where it is missing. */
  readonly history: string | null
  readonly preparedTransactions: number
  /** Backends that wait for a synchronous standby. */
  readonly waitingForSync: number
  /** How long ago the first of them began the statement that it waits with; null where nobody waits. */
  readonly waitingForSyncSeconds: number | null
  /**
   * synchronous_commit of sessions that set nothing themselves. Null where that cannot be told: a role or a database of
   * replctl's session has a value of its own.
   */
  readonly synchronousCommit?: string | null
}

/** Which archive each script speaks to, as `archiveConnectionName` names it; null: there is none that may be run. */
export interface ArchiveScripts {
  readonly push: string | null
  readonly fetch: string | null
}

/** What another node heard at the port of one whose host cannot be reached. */
export interface PeerAnswer {
  /** Who asked. */
  readonly from: NodeName
  /** `unknown`: somebody is there, and does not say. */
  readonly role: 'primary' | 'standby' | 'unknown'
  readonly systemIdentifier: string | null
  /** Of a standby whose replay is late it may be older than what it follows. */
  readonly timeline: TimelineId | null
  /** What it said instead of that; empty where it told. */
  readonly said: string
}

/** Everything that was observed of one node, in one survey. */
export interface NodeFacts {
  readonly name: NodeName
  /** Why the host could not be reached; everything else is then empty. */
  readonly unreachable: ReplctlError | null
  /** What the others hear at its port then; absent where nobody asked, or nobody is there. */
  readonly seenByOthers?: PeerAnswer
  readonly hostName: string
  /** Home of the PostgreSQL OS user; the state directory lies there, see `stateDirectoryOf`. */
  readonly home: string
  /** Host clock minus control host clock, in milliseconds, as far as the round trip can tell. */
  readonly clockOffsetMs: number
  readonly dataDirectoryState: DataDirectoryState
  readonly dataDirectoryInode: string
  /** Where postgresql.conf and pg_hba.conf live: the data directory, or e.g. `/etc/postgresql/15/main`. */
  readonly configDirectory: string
  readonly installed: readonly InstalledBinaries[]
  /** The ones to use: bin_dir, else those of the data directory's major version, else the highest. */
  readonly binaries: InstalledBinaries | null
  /** Major version of the data directory (PG_VERSION). */
  readonly dataMajor: number | null
  readonly control: ControlData | null
  readonly postmaster: PostmasterFacts | null
  /** The OS user may write nothing into the data directory: its file system became read-only, say. Absent: it may. */
  readonly isUnwritable?: boolean
  /** standby.signal, or recovery.conf with standby_mode. */
  readonly hasStandbySignal: boolean
  /** recovery.conf's own text (11 and older) with the password masked. */
  readonly recoveryConf: string
  /** replctl's rendered recovery settings, as they stand in the file. */
  readonly standbyConf: string
  /** postgresql.auto.conf: what ALTER SYSTEM and pg_basebackup wrote. */
  readonly autoConf: string
  /** pg_rewind was begun in the data directory and has not come to its end. */
  readonly hasRewindInProgress: boolean
  readonly rejoin: RejoinMark | null
  /** Where the data directory is. */
  readonly freeBytes: number | null
  /** Where its pg_wal is; null, or absent, where nobody looked. */
  readonly walFreeBytes?: number | null
  readonly mark: NodeMark | null
  readonly record: ClusterRecord | null
  readonly fence: FenceMark | null
  /** The unfinished operation's journal, as it was written. */
  readonly journal: string | null
  /** Operations that are over, as `operationId` names them, the newest last: their journals count no more. */
  readonly ended: readonly string[]
  /** Who holds the cluster now, as the lock's holder wrote it; null where nobody does. */
  readonly holder: string | null
  readonly instance: InstanceFacts | null
  /** What answers where the instance should, although no process works in its data directory: that was moved, or is another one. */
  readonly strayInstance?: InstanceFacts
  /** Why the running instance did not answer SQL. */
  readonly instanceError: ReplctlError | null
  /** Why archive-push failed there last; null since a push succeeded. */
  readonly archiveError?: ArchiveError | null
  /** The scripts that push WAL and fetch it, where the node has them and may run them; absent where nobody looked. */
  readonly archiveScripts?: ArchiveScripts
  /** Public: whether the replication password is in replctl's passfile there. */
  readonly hasPassfile: boolean
  /** replctl's start guard lies in the state directory. */
  readonly hasGuardScript: boolean
  /** The service of the host runs it before the server. */
  readonly isStartGuarded: boolean
}

/** All nodes as one survey saw them, in the inventory's order. */
export type Survey = readonly NodeFacts[]
