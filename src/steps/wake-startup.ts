/**
 * A reload wakes a startup process that sleeps for WAL, in wal_retrieve_retry_interval (5 s by default) or in a wait for its
 * walreceiver, and would otherwise notice up to 5 s later that it is to promote. One that is at work is left alone: a reload
 * is work for each process of the server just while writes wait, and a line in its log. Up to 13 nothing is told of it where
 * track_activities is off.
 */
export const wakeIfAsleep = `SELECT pg_reload_conf() WHERE NOT current_setting('track_activities')::bool
  OR EXISTS (SELECT FROM pg_stat_get_activity(NULL) WHERE backend_type = 'startup' AND wait_event LIKE 'Recovery%')`

/**
 * After how long a startup process that was told to promote is to be looked at again, in ms. At first every 10 ms, for writes
 * wait for it; the longer it takes the less a wake is worth.
 */
export function wakeAgainAfter(waitedMs: number): number {
  return Math.max(10, waitedMs / 20)
}
