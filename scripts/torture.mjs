#!/usr/bin/env node
/**
 * `npm run torture -- [--minutes 10 | --rounds N] [--seed N] [--mode async|sync|quorum] [--only fault,fault]`: a failover examiner.
 * Clients write numbered rows and keep a ledger of what was confirmed; faults and operator commands happen by a seeded schedule; at
 * the end each confirmed row must be on the surviving primary or (async only) in a salvage. Prints the seed, the history and the
 * verdict. Needs root.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { loadKit } from './lib/load-kit.mjs'
import { ensureRequirements } from './lib/requirements.mjs'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string' },
    rounds: { type: 'string' },
    seed: { type: 'string' },
    mode: { type: 'string', default: 'async' },
    only: { type: 'string' },
  },
})
spawnSync(process.execPath, [fileURLToPath(new URL('build.mjs', import.meta.url))], { stdio: 'inherit' })
ensureRequirements('tests')
const kit = await loadKit('reliability')
if (kit.hostsAvailable().kind !== 'namespaces') {
  console.error(`no test hosts here: ${kit.hostsAvailable().reason}`)
  process.exit(1)
}
const seed = Number(values.seed ?? Math.floor(Math.random() * 1_000_000))
console.log(`seed ${seed}, mode ${values.mode}`)
const { verdict, complaints, rounds, commands } = await kit.torture({
  seed,
  mode: values.mode,
  only: values.only?.split(','),
  ...(values.rounds ? { rounds: Number(values.rounds) } : { minutes: Number(values.minutes ?? 10) }),
  log: (line) => console.log(line),
})
const isGood = verdict.isGood && complaints.length === 0
console.log(`
seed ${seed}, mode ${values.mode}: ${rounds} rounds, ${commands} operator commands
${verdict.confirmed} rows confirmed, ${verdict.unknown} of unknown outcome
${verdict.confirmed - verdict.inSalvage - verdict.lost.length} confirmed rows are on the primary, ${verdict.inSalvage} in a salvage, ${verdict.lost.length} LOST
${verdict.phantoms.length} rows are there that nobody wrote`)
for (const entry of verdict.lost.slice(0, 20)) console.log(`  lost: ${JSON.stringify(entry)}`)
for (const complaint of complaints) console.log(`  ${complaint}`)
console.log(`verdict: ${isGood ? 'good' : 'BAD'}`)
process.exitCode = isGood ? 0 : 1
