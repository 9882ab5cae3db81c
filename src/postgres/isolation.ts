import type { ControlData } from './control-data.ts'
import { leastSettings } from './least-settings.ts'
import type { TimelineId } from './lsn.ts'
import { capabilitiesOf } from './versions.ts'

/** What an instance that is to be read by nobody but replctl is started with. */
export interface Isolation {
  readonly major: number
  readonly socketDirectory: string
  readonly hbaFile: string
  /** The timeline of the node's own WAL: it must not turn to another one that lies in pg_wal. */
  readonly timeline: TimelineId
  /** What its WAL was written with; its files may say less since, for its next start. Null: pg_control cannot be read. */
  readonly control: ControlData | null
}

/**
 * Settings, given on the command line so that no file overrides them, of a diverged instance that is started to be read:
 * a standby of nobody. It replays the WAL that lies there to its end and no further, can be reached through one socket
 * in a private folder only, archives and sends nothing, removes no WAL, and cannot be promoted by a file.
 */
export function isolationSettings(isolation: Isolation): Readonly<Record<string, string>> {
  const can = capabilitiesOf(isolation.major)
  return {
    listen_addresses: '',
    unix_socket_directories: isolation.socketDirectory,
    unix_socket_permissions: '0700',
    unix_socket_group: '',
    hba_file: isolation.hbaFile,
    external_pid_file: '',
    ssl: 'off',
    bonjour: 'off',
    hot_standby: 'on',
    hot_standby_feedback: 'off',
    max_standby_archive_delay: '-1',
    max_standby_streaming_delay: '-1',
    default_transaction_read_only: 'on',
    archive_mode: 'off',
    archive_command: '',
    autovacuum: 'off',
    max_logical_replication_workers: '0',
    synchronous_standby_names: '',
    restart_after_crash: 'off',
    session_preload_libraries: '',
    local_preload_libraries: '',
    // A restartpoint would remove WAL that pg_rewind needs later.
    checkpoint_timeout: '1d',
    // One that waits for WAL must be told from one that works.
    wal_retrieve_retry_interval: '5s',
    max_wal_size: '1TB',
    ...(can.walKeepSize ? { wal_keep_size: '1TB' } : { wal_keep_segments: '60000' }),
    ...(isolation.control === null ? {} : sufficient(isolation.control)),
    // Its log is read by replctl.
    logging_collector: 'off',
    log_destination: 'stderr',
    lc_messages: 'C',
    ...(can.standbySignalFile ? ownRecovery(isolation) : {}),
    ...(can.promoteTriggerFile ? { promote_trigger_file: '' } : {}),
    ...(can.slotSynchronisation ? { sync_replication_slots: 'off', synchronized_standby_slots: '' } : {}),
  }
}

/** Before 12 walsenders are among the connections; here nobody needs one, nor a connection that is kept free. */
const sufficient = (control: ControlData): Readonly<Record<string, string>> => ({
  superuser_reserved_connections: '0',
  max_wal_senders: '0',
  ...Object.fromEntries(leastSettings(control)),
})

function ownRecovery({ timeline }: Isolation): Readonly<Record<string, string>> {
  return {
    primary_conninfo: '',
    primary_slot_name: '',
    restore_command: '',
    archive_cleanup_command: '',
    recovery_end_command: '',
    recovery_target: '',
    recovery_target_lsn: '',
    recovery_target_name: '',
    recovery_target_time: '',
    recovery_target_xid: '',
    recovery_target_timeline: String(timeline),
    recovery_min_apply_delay: '0',
  }
}

/** The recovery.conf that does the same on 11, where these settings live in that file alone. */
export const isolatedRecoveryConf = ({ timeline }: Isolation): string =>
  `standby_mode = 'on'\nrecovery_target_timeline = '${timeline}'\n`
