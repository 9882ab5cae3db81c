import { alternating, bin, run } from './lib/measure.mjs'
import { row } from './lib/report.mjs'

/** `replctl --version` beside an empty Node.js. */
export async function bench() {
  const [own, node] = await alternating(
    15,
    () => run(process.execPath, [bin, '--version']),
    () => run(process.execPath, ['-e', '0']),
  )
  row('replctl --version', own, 'node -e 0', node, own / node, 2)
}
