import type { NodeFacts, PeerAnswer } from '../cluster/facts.ts'
import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { passfileOf } from '../cluster/node-configuration.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { type Command, shellScript } from '../command.ts'
import { buildConninfo } from '../postgres/conninfo.ts'
import type { TimelineId } from '../postgres/lsn.ts'
import { addGuardOption, removeGuardOption } from '../postgres/pg-ctl-conf.ts'
import {
  type GuardPeer,
  type GuardValues,
  guardFiles,
  renderGuardDropIn,
  renderGuardedServer,
  renderStartGuard,
} from '../postgres/start-guard.ts'
import type { CommandResult, RunOptions } from '../transport/transport.ts'
import { readTextFile, writeTextFile } from './files.ts'
import { commandFailed, type Node, stateScript } from './node.ts'
import { usualUnit } from './service.ts'
import { systemdUnitScript } from './systemd-unit.ts'

/** The texts of templates/guard/. */
export interface GuardTemplates {
  readonly startGuard: string
  readonly guardedPostgres: string
  readonly guardDropIn: string
}

export interface GuardWish {
  readonly inventory: Inventory
  readonly templates: GuardTemplates
  readonly node: NodeSettings
  readonly facts: NodeFacts
  readonly binDirectory: string
  /** Nodes of the cluster that may have taken over. */
  readonly members: readonly NodeName[]
}

/** Where a host has its service run something before the server. */
export type GuardPlace =
  | {
      readonly is: 'pg_ctl.conf'
      readonly path: string
      readonly live: string | null
      readonly wanted: string
    }
  | {
      readonly is: 'unit'
      readonly unit: string
      readonly path: string
      readonly live: string | null
      readonly wanted: string
    }
  | { readonly is: 'none'; readonly because: string }

/** The two scripts of a node as they should be. */
export function guardScripts(wish: GuardWish): readonly { readonly path: string; readonly text: string }[] {
  const values = valuesOf(wish)
  const { startGuard, guardedPostgres } = wish.templates
  const others = wish.inventory.nodes
    .filter((one) => one.name !== wish.node.name && wish.members.includes(one.name))
    .map((one): GuardPeer => ({ name: one.name, conninfo: guardConninfo(wish, one) }))
  return [
    {
      path: `${values.stateDirectory}/${guardFiles.guard}`,
      text: renderStartGuard(startGuard, { ...values, others }),
    },
    {
      path: `${values.stateDirectory}/${guardFiles.server}`,
      text: renderGuardedServer(guardedPostgres, values),
    },
  ]
}

/** A standby tells itself from a primary by transaction_read_only, once the default is known to be off. */
function guardConninfo({ inventory, node, facts }: GuardWish, other: NodeSettings): string {
  return buildConninfo({
    host: other.address,
    port: String(other.postgres.port),
    user: inventory.replication.user,
    passfile: passfileOf(facts.home, node),
    replication: 'true',
    application_name: 'replctl start guard',
    connect_timeout: '2',
    options: '-c default_transaction_read_only=off',
  })
}

function valuesOf({ inventory, node, facts, binDirectory }: GuardWish): GuardValues {
  return {
    cluster: inventory.cluster,
    node: node.name,
    stateDirectory: stateDirectoryOf(facts.home, node),
    dataDirectory: node.postgres.dataDir,
    binDirectory,
  }
}

/**
 * Finds what starts the instance on its host, whatever replctl itself starts it with: Debian's pg_ctlcluster (which its
 * systemd unit and its init script call, too) by the configuration directory, else a systemd unit that names the data
 * directory or is named by the inventory.
 */
export async function findGuardPlace(node: Node, wish: GuardWish): Promise<GuardPlace> {
  const { facts, node: settings } = wish
  const values = valuesOf(wish)
  if (/^\/etc\/postgresql\/\d+\/[^/]+$/.test(facts.configDirectory)) {
    const path = `${facts.configDirectory}/pg_ctl.conf`
    const [live, common] = await Promise.all([
      readTextFile(node, path),
      readTextFile(node, '/etc/postgresql-common/pg_ctl.conf'),
    ])
    const server = `${values.stateDirectory}/${guardFiles.server}`
    const options = addGuardOption(live, server, common ?? '')
    if ('refusal' in options) return { is: 'none', because: `${path}: ${options.refusal}` }
    if (live === options.text || (await canWrite(node, path))) {
      return { is: 'pg_ctl.conf', path, live, wanted: options.text }
    }
    return { is: 'none', because: `"${settings.postgres.osUser}" may not write ${path}` }
  }
  const unit = await findUnit(node, facts)
  if (unit !== null) {
    const path = `/etc/systemd/system/${unit}.service.d/replctl-${wish.inventory.cluster}.conf`
    const live = await readTextFile(node, path)
    const wanted = renderGuardDropIn(wish.templates.guardDropIn, values)
    if (live === wanted || (await canBeRoot(node))) return { is: 'unit', unit, path, live, wanted }
    return { is: 'none', because: `${path} can be written by root alone, whom replctl cannot become there` }
  }
  return {
    is: 'none',
    because:
      typeof settings.postgres.service === 'object'
        ? 'it is started by commands of the inventory'
        : 'it is started by pg_ctl, and no service of its host knows it',
  }
}

/** Name of the systemd unit that serves a data directory; the inventory may say that there is one. */
async function findUnit(node: Node, facts: NodeFacts): Promise<string | null> {
  const { service, dataDir } = node.settings.postgres
  if (typeof service === 'object') return null
  const guess = service === 'systemd' ? usualUnit(facts) : ''
  const script = `${systemdUnitScript}unit_of "$1" "$2" 2>/dev/null; :`
  const command = shellScript('look for a systemd unit', script, [dataDir, guess], { isQuick: true })
  const found = await node.read(command)
  if (found.status !== 0) throw commandFailed(node.name, command, found)
  return found.stdout.trim() || null
}

async function canWrite(node: Node, path: string): Promise<boolean> {
  const script = 'if [ -e "$1" ]; then [ -w "$1" ]; else [ -w "$(dirname -- "$1")" ]; fi'
  return (await node.run(shellScript(`try to write ${path}`, script, [path]))).status === 0
}

async function canBeRoot(node: Node): Promise<boolean> {
  const tried = await node.run(shellScript('try root', 'true', [], { runAs: 'root' })).catch(() => null)
  return tried?.status === 0
}

const reloadUnitsScript = 'if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi'

/** Writes a unit's drop-in as root, and tells systemd. */
export function writeDropIn(place: Extract<GuardPlace, { is: 'unit' }>): Command {
  const script = `
umask 022
mkdir -p -- "$(dirname -- "$1")" || exit 74
cat > "$1.new" && { sync "$1.new" 2>/dev/null || sync; } && mv -f -- "$1.new" "$1" || exit 74
${reloadUnitsScript}
`
  return shellScript(`write ${place.path}`, script, [place.path], { stdin: place.wanted, runAs: 'root' })
}

/**
 * Takes the guard out of the node's service, then its scripts away; nothing where it is in no service. What replctl did
 * not write stays byte for byte.
 */
export async function removeStartGuard(node: Node, facts: NodeFacts, cluster: string): Promise<void> {
  const path = `${facts.configDirectory}/pg_ctl.conf`
  const text =
    facts.configDirectory === node.settings.postgres.dataDir ? null : await readTextFile(node, path)
  if (text !== null && removeGuardOption(text) !== text) {
    const rest = removeGuardOption(text)
    if (rest === '') await node.output(shellScript(`remove ${path}`, 'rm -f -- "$1"', [path]))
    else await writeTextFile(node, path, rest)
  }
  const list =
    'for file in /etc/systemd/system/postgresql*.service.d/replctl-"$1".conf; do [ -e "$file" ] && printf "%s\\n" "$file"; done; :'
  const dropIns = (await node.output(shellScript('look for drop-ins', list, [cluster])))
    .split('\n')
    .filter(Boolean)
  if (dropIns.length > 0) {
    const remove = `rm -f -- "$@" && for file; do rmdir -- "$(dirname -- "$file")" 2>/dev/null; done; ${reloadUnitsScript}`
    await node.output(
      shellScript('remove the drop-in of the start guard', remove, dropIns, { runAs: 'root' }),
    )
  }
  const { guard, server, permission } = guardFiles
  const script = 'shift; for name; do rm -f "$state/$name"; done'
  await node.output(stateScript(node, 'remove the start guard', script, [guard, server, permission]))
}

/** Whether the server's stand-in can be run where it lies (a file system may forbid that), and what it said if not. */
export async function tryGuardedServer(node: Node): Promise<string | null> {
  const script = `"$state/${guardFiles.server}" --version`
  const tried = await node.run(stateScript(node, 'try to run the guarded server', script))
  return tried.status === 0 && tried.stdout.startsWith('postgres ')
    ? null
    : (tried.stderr || tried.stdout).trim()
}

/** Has the guard ask the other nodes once; it changes nothing. */
export async function checkGuard(
  node: Node,
  options?: RunOptions,
): Promise<{ readonly works: boolean; readonly said: string }> {
  const script = `"$state/${guardFiles.guard}" --check`
  const asked = await node.run(stateScript(node, 'ask the other nodes by the start guard', script), options)
  return {
    works: asked.status === 0,
    said: (asked.status === 0 ? asked.stdout : asked.stderr || asked.stdout).trim(),
  }
}

/** What the guard's trial said of each node that answered: "pg2 is a standby on timeline 3, pg3 is a primary on timeline 3". */
export function readGuardAnswers(
  from: NodeName,
  said: string,
): readonly (PeerAnswer & { readonly at: string })[] {
  return [...said.matchAll(/(?:^|, )(\S+) is a (primary|standby) on timeline (\d+)/g)].map(
    ([, at = '', role, timeline]) => ({
      ...{ from, at, role: role as 'primary' | 'standby', timeline: Number(timeline) as TimelineId },
      ...{ systemIdentifier: null, said: '' },
    }),
  )
}

/**
 * Starts (or restarts) an instance of which replctl knows that nobody has taken over from it: it holds the lock and
 * promoted nobody. The guard is then content with fewer answers; a node that has taken over nevertheless still counts.
 */
export async function runUnasked(
  node: Node,
  facts: NodeFacts,
  command: Command,
  options: RunOptions,
): Promise<CommandResult> {
  if (!facts.hasGuardScript) return await node.run(command, options)
  const allow = `"$state/${guardFiles.guard}" --allow-once`
  await node.output(stateScript(node, 'allow one start', allow))
  try {
    return await node.run(command, options)
  } finally {
    const forget = `rm -f "$state/${guardFiles.permission}"`
    await node.run(stateScript(node, 'allow no further start', forget)).catch(() => undefined)
  }
}
