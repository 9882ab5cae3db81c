/**
 * After how long a startup process that was told to promote is to be woken again, in ms: a reload wakes one that sleeps in
 * wal_retrieve_retry_interval (5 s by default). At first every 10 ms, for writes wait for it; the longer it takes the less a wake
 * is worth, and each is a line in the server's log.
 */
export function wakeAgainAfter(waitedMs: number): number {
  return Math.max(10, waitedMs / 20)
}
