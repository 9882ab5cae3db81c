#!/usr/bin/env node
/**
 * `npm run kill-anywhere -- [init add-standby promote switchover rejoin] [--points N] [--messages N] [--cuts N]`: runs each command
 * again and again, kills it after each of its remote commands (`--points 0`: all of them), after N pieces of its traffic, or cuts the
 * link to the host it works on; another control host then finishes it by the same command, `resume` or `abort`; and everything is
 * looked at. Prints each run that left anything wrong, and the counts. Needs root.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { loadKit } from './lib/load-kit.mjs'
import { ensureRequirements } from './lib/requirements.mjs'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    points: { type: 'string', default: '0' },
    messages: { type: 'string', default: '20' },
    cuts: { type: 'string', default: '4' },
  },
})
spawnSync(process.execPath, [fileURLToPath(new URL('build.mjs', import.meta.url))], { stdio: 'inherit' })
ensureRequirements('tests')
const kit = await loadKit('reliability')
if (kit.hostsAvailable().kind !== 'namespaces') {
  console.error(`no test hosts here: ${kit.hostsAvailable().reason}`)
  process.exit(1)
}
const names = positionals.length > 0 ? positionals : kit.ordealNames
const unknown = names.find((name) => !kit.ordealNames.includes(name))
if (unknown) {
  console.error(`no such command: ${unknown}; there are ${kit.ordealNames.join(', ')}`)
  process.exit(2)
}

const hosts = await kit.TestHosts.create({
  hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
})
const rows = []
let bad = 0
try {
  const arena = await kit.makeArena(hosts)
  for (const name of names) await tryOut(arena, kit.ordeals[name])
} finally {
  await hosts.destroy()
}
console.log('\ncommand       killed  cut off  wrong')
for (const row of rows) {
  console.log(
    `${row.name.padEnd(12)} ${String(row.kill).padStart(7)} ${String(row.cut).padStart(8)} ${String(row.wrong).padStart(6)}`,
  )
}
const total = rows.reduce((sum, row) => sum + row.kill + row.cut, 0)
console.log(`\n${total - bad} passed, ${bad} failed`)
process.exitCode = bad > 0 || total === 0 ? 1 : 0

async function tryOut(arena, ordeal) {
  await ordeal.build(arena)
  const counts = await kit.measure(arena, ordeal)
  console.error(`# ${ordeal.name}: ${counts.command} remote commands, ${counts.message} pieces of traffic`)
  const commands = Number(values.points) || counts.command
  const plan = [
    ...kit.spreadPoints('command', counts.command, commands).map((point) => ({ disaster: 'kill', point })),
    ...kit
      .spreadPoints('message', counts.message, Number(values.messages), 0.37)
      .map((point) => ({ disaster: 'kill', point })),
    ...kit
      .spreadPoints('command', counts.command, Number(values.cuts), 0.5)
      .map((point) => ({ disaster: 'cut', point })),
  ]
  const row = { name: ordeal.name, kill: 0, cut: 0, wrong: 0 }
  rows.push(row)
  for (const [index, { disaster, point }] of plan.entries()) {
    const trial = { ordeal, disaster, point, ending: kit.endings[index % kit.endings.length] }
    const { complaints, wasEarlier } = await kit.attempt(arena, trial).catch((error) => ({
      complaints: [String(error?.stack ?? error)],
      wasEarlier: false,
    }))
    if (wasEarlier && complaints.length === 0) continue
    row[disaster] += 1
    if (complaints.length === 0) continue
    row.wrong += 1
    bad += 1
    console.log(`WRONG: ${kit.describeTrial(trial)}`)
    for (const complaint of complaints) console.log(`  ${complaint}`)
  }
  console.error(`# ${row.name}: ${row.kill} times killed, ${row.cut} times cut off, ${row.wrong} wrong`)
}
