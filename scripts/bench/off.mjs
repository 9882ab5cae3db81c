import { failover } from './lib/failover.mjs'
import { median, replctl, rounds } from './lib/measure.mjs'
import { row } from './lib/report.mjs'

/** `promote` after the primary's host was switched off, with a fence command that answers at once. */
export async function bench() {
  const own = []
  const promote = async ({ cluster }) => await replctl(cluster, ['promote', 'pg2'])
  for (let round = 0; round < rounds; round++) {
    own.push(await failover(promote, undefined, ({ hosts }) => hosts.powerOff('pg1')))
  }
  row('promote, host switched off', median(own), 'goal', 2000, median(own), 2000, 'ms')
}
