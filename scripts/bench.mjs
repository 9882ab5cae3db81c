#!/usr/bin/env node
/**
 * `npm run bench [-- name …]`: replctl beside what its users would run instead, in one run on the same test hosts.
 * Prints medians, ratios and the goal of each. Needs root (hosts in namespaces). Each file in scripts/bench/ is one bench, named
 * after it; it exports `bench()`. BENCH_ROUNDS says how often the dear ones are repeated.
 */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { report } from './bench/lib/report.mjs'
import { ensureRequirements } from './lib/requirements.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const there = readdirSync(here('bench'))
  .filter((file) => file.endsWith('.mjs'))
  .map((file) => file.replace(/\.mjs$/, ''))
  .toSorted()
const chosen = process.argv.slice(2)
const unknown = chosen.filter((name) => !there.includes(name))
if (unknown.length > 0) {
  console.error(`there is no bench ${unknown.join(', ')}; there are: ${there.join(', ')}`)
  process.exit(2)
}
spawnSync(process.execPath, [here('build.mjs')], { stdio: 'inherit' })
ensureRequirements('tests')
const { kit } = await import('./bench/lib/cluster.mjs')
if (kit.hostsAvailable().kind !== 'namespaces') {
  console.error(`no test hosts here: ${kit.hostsAvailable().reason}`)
  process.exit(1)
}
const failed = []
for (const name of there) {
  if (chosen.length > 0 && !chosen.includes(name)) continue
  console.error(`# ${name}`)
  const { bench } = await import(`./bench/${name}.mjs`)
  try {
    await bench()
  } catch (error) {
    console.error(error)
    failed.push(name)
  }
}
report()
if (failed.length > 0) {
  console.error(`these ended with an error: ${failed.join(', ')}`)
  process.exitCode = 1
}
