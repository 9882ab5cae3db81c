#!/usr/bin/env node
/**
 * Three test hosts for trials by hand: `node scripts/dev-hosts.mjs up [--login postgres|admin|root] [name …]` boots them and
 * prints the path of an inventory; `down <inventory or its folder>` ends these hosts and no others. They live until then.
 */
import { dirname, resolve } from 'node:path'
import { loadKit } from './lib/load-kit.mjs'

const [action, ...words] = process.argv.slice(2)
const kit = await loadKit()

if (action === 'up') await up()
else if (action === 'down' && words.length === 1) await down(words[0])
else {
  for (const { path } of kit.keptRuns()) console.error(`running: ${path}`)
  console.error(
    'usage: node scripts/dev-hosts.mjs up [--login postgres|admin|root] [name …] | down <inventory>',
  )
  process.exitCode = 2
}

async function up() {
  const available = kit.hostsAvailable()
  if (available.kind !== 'namespaces') {
    console.error(`no test hosts here: ${available.reason}`)
    process.exitCode = 1
    return
  }
  const at = words.indexOf('--login')
  const login = at < 0 ? 'postgres' : words.splice(at, 2)[1]
  const names = words.length > 0 ? words : ['pg1', 'pg2', 'pg3']
  const hosts = await kit.TestHosts.create({ hosts: names.map((name) => ({ name, login })), keep: true })
  const cluster = await kit.TestCluster.create(hosts)
  for (const name of names) {
    console.error(`${name}  ${hosts.addressOf(name)}  ${login}  shell: nsenter -a -t ${hosts.initPid(name)}`)
  }
  console.error(
    `ssh -i ${hosts.identityFile} -o UserKnownHostsFile=${hosts.knownHostsFile} ${login}@<address>`,
  )
  console.error(`to end them: node scripts/dev-hosts.mjs down ${cluster.inventoryFile}`)
  console.log(cluster.inventoryFile)
}

async function down(inventory) {
  const path = resolve(inventory)
  await kit.destroyKept(path.endsWith('.yaml') ? dirname(path) : path)
}
