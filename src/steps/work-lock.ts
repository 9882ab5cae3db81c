import { lockScript } from '../node/lock-script.ts'

/**
 * Mutating work on a data directory takes this lock on the host, so that a new run waits for what a killed one left
 * running there.
 */
export const workLock = lockScript(8, '"$state/work"', 60)
