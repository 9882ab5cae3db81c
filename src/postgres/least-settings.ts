import type { ControlData } from './control-data.ts'

/** No recovery gets past WAL that was written with larger ones, if it lets anybody look. */
export const leastSettings = (control: ControlData): readonly (readonly [name: string, value: string])[] => [
  ['max_connections', String(control.maxConnections)],
  ['max_worker_processes', String(control.maxWorkerProcesses)],
  ...(control.maxWalSenders === null ? [] : [['max_wal_senders', String(control.maxWalSenders)] as const]),
  ['max_prepared_transactions', String(control.maxPreparedTransactions)],
  ['max_locks_per_transaction', String(control.maxLocksPerTransaction)],
]
