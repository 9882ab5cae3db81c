import type { InstanceFacts, ReplicationConnection, ReplicationSlot, Setting } from '../cluster/facts.ts'
import { type Lsn, parseLsn, type TimelineId } from '../postgres/lsn.ts'
import type { SqlSession } from './sql-session.ts'

/** Settings the survey reads; what decisions and checks need. */
const surveyedSettings = [
  ...[
    'wal_level',
    'max_wal_senders',
    'max_replication_slots',
    'hot_standby',
    'wal_log_hints',
    'data_checksums',
  ],
  ...[
    'full_page_writes',
    'archive_mode',
    'archive_command',
    'archive_library',
    'synchronous_standby_names',
    'synchronous_commit',
  ],
  ...[
    'primary_conninfo',
    'primary_slot_name',
    'recovery_min_apply_delay',
    'promote_trigger_file',
    'cluster_name',
  ],
  ...['config_file', 'hba_file', 'data_directory', 'listen_addresses', 'port', 'unix_socket_directories'],
  ...['max_slot_wal_keep_size', 'wal_keep_size', 'wal_keep_segments', 'wal_segment_size', 'block_size'],
  ...['summarize_wal', 'synchronized_standby_slots', 'superuser_reserved_connections'],
  ...['max_connections', 'max_worker_processes', 'max_prepared_transactions', 'max_locks_per_transaction'],
  ...[
    'password_encryption',
    'lc_collate',
    'lc_ctype',
    'server_encoding',
    'restore_command',
    'wal_receiver_timeout',
  ],
]

/**
 * A standby's timeline: pg_control may lag behind until the next restartpoint, so without a walreceiver to ask the newest
 * WAL segment says it. Where it went over to that timeline its history file is there, too: a segment alone may be left of a
 * timeline that the node was rewound from.
 *
 * One statement whose answer is one JSON document. Rows of system views are taken whole (`to_jsonb`), so that the
 * same text serves every version: a column that a version lacks is simply absent.
 */
const instanceQuery = `SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'in_recovery', r.in_recovery,
  'timeline', r.timeline,
  'current_lsn', CASE WHEN r.in_recovery THEN NULL ELSE pg_current_wal_lsn()::text END,
  'receive_lsn', CASE WHEN r.in_recovery THEN pg_last_wal_receive_lsn()::text END,
  'replay_lsn', CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn()::text END,
  'replay_lag', CASE WHEN r.in_recovery THEN
    CASE WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()
           AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 0
         ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END END,
  'replay_age', CASE WHEN r.in_recovery THEN
    extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
  'paused', CASE WHEN r.in_recovery THEN pg_is_wal_replay_paused() ELSE false END,
  'awaits_delay', r.in_recovery AND EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'RecoveryApplyDelay'),
  'receiver', (SELECT to_jsonb(w) - 'conninfo' || jsonb_build_object('silence',
       extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time)) FROM pg_stat_wal_receiver w
       WHERE w.pid IS NOT NULL LIMIT 1),
  'replication', (SELECT coalesce(json_agg(to_jsonb(s)), '[]') FROM pg_stat_replication s),
  'slots', (SELECT coalesce(json_agg(to_jsonb(s) ORDER BY s.slot_name), '[]') FROM pg_replication_slots s),
  'settings', (SELECT json_object_agg(name, json_build_array(setting, source, sourcefile, pending_restart))
       FROM pg_settings WHERE name IN (${surveyedSettings.map((name) => `'${name}'`).join(', ')})),
  'archiver', (SELECT to_jsonb(a) || jsonb_build_object('ready', w.ready, 'oldest_ready', w.oldest,
       'oldest_ready_seconds', CASE WHEN w.oldest IS NOT NULL THEN extract(epoch FROM clock_timestamp() -
         (pg_stat_file('pg_wal/archive_status/' || w.oldest, true)).modification) END,
       'last_archived_seconds', extract(epoch FROM clock_timestamp() - a.last_archived_time))
     FROM pg_stat_archiver a, (SELECT count(*) AS ready, min(n) AS oldest
       FROM pg_ls_dir('pg_wal/archive_status', true, false) n
       WHERE n LIKE '%.ready' AND current_setting('archive_mode') <> 'off') w),
  'tablespaces', (SELECT coalesce(json_agg(json_build_array(spcname, pg_tablespace_location(oid))), '[]')
       FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')),
  'history', CASE WHEN r.timeline > 1
    THEN pg_read_file('pg_wal/' || lpad(upper(to_hex(r.timeline)), 8, '0') || '.history', 0, 1000000, true) END,
  'prepared', (SELECT count(*) FROM pg_prepared_xacts),
  'waiting_for_sync', (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'),
  'waiting_seconds', (SELECT extract(epoch FROM clock_timestamp() - min(query_start)) FROM pg_stat_activity
       WHERE wait_event = 'SyncRep'),
  'synchronous_commit', (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit' AND NOT EXISTS (
       SELECT FROM pg_db_role_setting, unnest(setconfig) one WHERE one LIKE 'synchronous_commit=%'
         AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
         AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))))
) FROM (SELECT i.in_recovery, CASE WHEN i.in_recovery
    THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                  (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                  coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                           (SELECT max(('x' || substr(name, 1, 8))::bit(32)::int) FROM pg_ls_waldir()
                             WHERE name ~ '^[0-9A-F]{24}$' AND substr(name, 1, 8) || '.history' IN (
                               SELECT name FROM pg_ls_waldir()))))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END AS timeline
  FROM (SELECT pg_is_in_recovery() AS in_recovery) i) r`

interface RawInstance {
  readonly version: number
  readonly system_identifier: string
  readonly in_recovery: boolean
  readonly timeline: number
  readonly current_lsn: string | null
  readonly receive_lsn: string | null
  readonly replay_lsn: string | null
  readonly replay_lag: number | null
  readonly replay_age: number | null
  readonly paused: boolean
  readonly awaits_delay: boolean
  readonly receiver: RawRow | null
  readonly replication: readonly RawRow[]
  readonly slots: readonly RawRow[]
  readonly settings: Readonly<Record<string, readonly [string, string, string | null, boolean]>>
  readonly archiver: RawRow | null
  readonly tablespaces: readonly (readonly [string, string])[]
  readonly history: string | null
  readonly prepared: number
  readonly waiting_for_sync: number
  readonly waiting_seconds: number | null
  readonly synchronous_commit: string | null
}
type RawRow = Readonly<Record<string, unknown>>

/** Reads what an instance says of itself, in one round trip. */
export async function readInstanceFacts(sql: SqlSession, timeoutMs = 10_000): Promise<InstanceFacts> {
  const raw = await sql.json<RawInstance>(instanceQuery, { timeoutMs, name: 'replctl_instance' })
  return {
    serverVersionNumber: raw.version,
    systemIdentifier: raw.system_identifier,
    isInRecovery: raw.in_recovery,
    timeline: raw.timeline as TimelineId,
    currentLsn: lsnOrNull(raw.current_lsn),
    receiveLsn: lsnOrNull(raw.receive_lsn),
    replayLsn: lsnOrNull(raw.replay_lsn),
    // Clocks differ.
    replayLagSeconds: raw.replay_lag === null ? null : Math.max(0, raw.replay_lag),
    lastReplayedSeconds: raw.replay_age === null ? null : Math.max(0, raw.replay_age),
    isReplayPaused: raw.paused,
    isAwaitingDelay: raw.awaits_delay,
    receiver: readReceiver(raw.receiver),
    replication: raw.replication.map(readConnection),
    slots: raw.slots.map(readSlot),
    settings: readSettings(raw.settings),
    archiver: readArchiver(raw.archiver),
    tablespaces: raw.tablespaces.map(([name, location]) => ({ name, location })),
    history: raw.history,
    preparedTransactions: raw.prepared,
    waitingForSync: raw.waiting_for_sync,
    waitingForSyncSeconds: raw.waiting_seconds,
    synchronousCommit: raw.synchronous_commit,
  }
}

/** The reading that is under way on a session, and the one that follows it. */
interface Readings {
  running: Promise<InstanceFacts> | null
  next: Promise<InstanceFacts> | null
}
const readingsOf = new WeakMap<SqlSession, Readings>()

/**
 * The same for those who look at one instance side by side (sixteen standbys at their primary): who comes while a reading is
 * under way shares the next one with all others who do. What is given was read after the call.
 */
export function readInstanceTogether(sql: SqlSession): Promise<InstanceFacts> {
  const readings = readingsOf.get(sql) ?? { running: null, next: null }
  readingsOf.set(sql, readings)
  const read = (): Promise<InstanceFacts> => {
    const reading = readInstanceFacts(sql).finally(() => {
      if (readings.running === reading) readings.running = null
    })
    readings.running = reading
    return reading
  }
  if (readings.running === null) return read()
  readings.next ??= readings.running
    .catch(() => undefined)
    .then(() => {
      readings.next = null
      return read()
    })
  return readings.next
}

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null)
const numberOrNull = (value: unknown): number | null => (typeof value === 'number' ? value : null)
const lsnOrNull = (value: unknown): Lsn | null => (typeof value === 'string' ? parseLsn(value) : null)

function readReceiver(row: RawRow | null): InstanceFacts['receiver'] {
  if (row === null) return null
  return {
    status: text(row.status) ?? 'unknown',
    senderHost: text(row.sender_host),
    senderPort: typeof row.sender_port === 'number' ? row.sender_port : null,
    slotName: text(row.slot_name),
    receivedTimeline: typeof row.received_tli === 'number' ? (row.received_tli as TimelineId) : null,
    latestEndLsn: lsnOrNull(row.latest_end_lsn),
    silenceSeconds: typeof row.silence === 'number' ? row.silence : null,
  }
}

function readConnection(row: RawRow): ReplicationConnection {
  return {
    applicationName: text(row.application_name) ?? '',
    clientAddress: text(row.client_addr),
    state: text(row.state) ?? 'unknown',
    syncState: text(row.sync_state) ?? 'async',
    sentLsn: lsnOrNull(row.sent_lsn),
    flushLsn: lsnOrNull(row.flush_lsn),
    replayLsn: lsnOrNull(row.replay_lsn),
  }
}

function readSlot(row: RawRow): ReplicationSlot {
  return {
    name: text(row.slot_name) ?? '',
    type: row.slot_type === 'logical' ? 'logical' : 'physical',
    isActive: row.active === true,
    isTemporary: row.temporary === true,
    isFailover: row.failover === true,
    isSynced: row.synced === true,
    restartLsn: lsnOrNull(row.restart_lsn),
    walStatus: text(row.wal_status),
    invalidationReason: text(row.invalidation_reason),
  }
}

function readSettings(raw: RawInstance['settings']): Readonly<Record<string, Setting>> {
  return Object.fromEntries(
    Object.entries(raw).map(([name, [value, source, sourceFile, isPendingRestart]]) => [
      name,
      { value, source, sourceFile, isPendingRestart },
    ]),
  )
}

function readArchiver(row: RawRow | null): InstanceFacts['archiver'] {
  if (row === null) return null
  const archivedAt = text(row.last_archived_time)
  const failedAt = text(row.last_failed_time)
  return {
    archivedCount: Number(row.archived_count ?? 0),
    failedCount: Number(row.failed_count ?? 0),
    lastArchivedWal: text(row.last_archived_wal),
    lastFailedWal: text(row.last_failed_wal),
    readyCount: Number(row.ready ?? 0),
    oldestReady: text(row.oldest_ready)?.replace(/\.ready$/, '') ?? null,
    oldestReadySeconds: numberOrNull(row.oldest_ready_seconds),
    lastArchivedSeconds: numberOrNull(row.last_archived_seconds),
    isFailing: failedAt !== null && (archivedAt === null || Date.parse(failedAt) > Date.parse(archivedAt)),
  }
}
