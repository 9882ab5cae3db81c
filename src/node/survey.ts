import type {
  ArchiveScripts,
  ClusterRecord,
  FenceMark,
  InstanceFacts,
  NodeFacts,
  NodeMark,
  PostmasterFacts,
  RejoinMark,
} from '../cluster/facts.ts'
import { forgetEnded } from '../cluster/unfinished.ts'
import { type Command, shellScript } from '../command.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { archiveFiles, parseArchiveError } from '../postgres/archive.ts'
import { parseControlData } from '../postgres/control-data.ts'
import { parsePostmasterPid } from '../postgres/postmaster-pid.ts'
import { guardFiles } from '../postgres/start-guard.ts'
import { parsePostgresVersion } from '../postgres/versions.ts'
import { factsScript } from './facts-script.ts'
import type { LookDepth } from './guard.ts'
import { readInstanceFacts } from './instance-facts.ts'
import { commandFailed, isSameEndpoint, type Node } from './node.ts'
import { preloadPg } from './pg-session.ts'
import { notAnswering } from './sql-session.ts'

/** Observes all nodes at the same time. It only reads; a host that cannot be reached is a fact, not an error. */
export async function surveyNodes(nodes: readonly Node[], depth: LookDepth = 'full'): Promise<NodeFacts[]> {
  preloadPg()
  return forgetEnded(await Promise.all(nodes.map((node) => surveyNode(node, depth))))
}

/** How old facts may be for a step. Nothing was changed by us since they were read. */
const freshMs = 1_000

/**
 * Facts that began to be gathered after `notBefore` (`performance.now()`), and hardly more than a moment ago: those of a
 * survey that is just done or still under way, else of a new one. `mustBeQuiet`: replctl did nothing at all since.
 */
export async function recentFacts(
  node: Node,
  wish: { readonly notBefore: number; readonly mustBeQuiet: boolean },
): Promise<NodeFacts> {
  const last = node.lastSurvey
  const isFresh =
    last !== null &&
    performance.now() - last.at < freshMs &&
    last.at > wish.notBefore &&
    (!wish.mustBeQuiet || last.activity === node.activity.count)
  return isFresh ? await last.facts : await surveyNode(node)
}

/**
 * Observes one node: its host and files by one script, its instance by one SQL statement. Not `full`: minor versions of
 * the programs do not matter, so they are not started to say theirs.
 */
export async function surveyNode(node: Node, depth: LookDepth = 'full'): Promise<NodeFacts> {
  return await remember(node, observeNode(node, depth))
}

async function remember(node: Node, facts: Promise<NodeFacts>): Promise<NodeFacts> {
  node.lastSurvey = { at: performance.now(), activity: node.activity.count, facts }
  return await facts
}

async function observeNode(node: Node, depth: LookDepth): Promise<NodeFacts> {
  const { dataDir, binDir } = node.settings.postgres
  const command = shellScript('look at the host', factsScript, [
    ...[node.settings.stateDir, dataDir, binDir ?? ''],
    node.known !== null ? 'quick' : depth === 'full' ? '' : depth,
  ])
  const askedAt = Date.now()
  const connecting = node.transport.connect()
  const output = connecting.then(() => lookAround(node, command))
  const instance = connecting.then(() => askEarly(node))
  return await completeFacts(node, output, instance, askedAt)
}

/**
 * The survey of a node whose lock was just taken: the lock's holder says what there is to be known of the host
 * (`output`), the instance is asked now.
 */
export async function surveyLocked(node: Node, output: Promise<string>): Promise<NodeFacts> {
  return await remember(node, completeFacts(node, output, askEarly(node), Date.now()))
}

/** By what runs on the host already, else by a command of its own. */
async function lookAround(node: Node, command: Command): Promise<string> {
  if (node.shell !== null && node.known !== null) {
    try {
      return await node.shell.look()
    } catch {
      // Its holder is gone, which is for others to notice: the host can still be looked at.
    }
  }
  const result = await node.read(command, { timeoutMs: 15_000 })
  if (result.status !== 0) throw commandFailed(node.name, command, result)
  return result.stdout
}

/** What the instance says of itself, and where it answered. */
interface EarlyAnswer {
  readonly endpoint: string
  readonly instance: InstanceFacts
}

/** Asks the instance, where a session to it could be opened unseen, while its host is still being looked at. */
async function askEarly(node: Node): Promise<EarlyAnswer | null> {
  beginSql(node)
  try {
    const open = await node.openSql()
    return open === null ? null : { endpoint: open.endpoint, instance: await readInstanceFacts(open.sql) }
  } catch {
    // Asked again when it is known where it answers; then the reason is told.
    return null
  }
}

/** A session is opened where it will be wanted as a rule, while the host is still being looked at. */
export function beginSql(node: Node): void {
  const { parameters, port, dataDir, binDir } = node.settings.postgres
  const directories = parameters.unix_socket_directories?.split(',') ?? ['/var/run/postgresql']
  if (node.known !== null || directories.length !== 1) return
  node.presumeSql({ socketDirectory: directories[0] ?? '', port, binDirectory: binDir ?? '' }, dataDir)
}

async function completeFacts(
  node: Node,
  output: Promise<string>,
  early: Promise<EarlyAnswer | null>,
  askedAt: number,
): Promise<NodeFacts> {
  let said: string
  early.catch(() => undefined)
  try {
    said = await output
  } catch (thrown) {
    return unreachableNode(node, asReplctlError(thrown).with({ node: node.name }))
  }
  const facts = readHostFacts(node, said, (askedAt + Date.now()) / 2)
  const { hostName, installed, clockOffsetMs, freeBytes, walFreeBytes = null } = facts
  node.known = { hostName, installed, clockOffsetMs, freeBytes, walFreeBytes }
  if (facts.postmaster?.isAlive !== true) {
    const answer = await early
    return answer === null ? facts : { ...facts, strayInstance: answer.instance }
  }
  return { ...facts, ...(await askInstance(node, facts, early, askedAt)) }
}

async function askInstance(
  node: Node,
  facts: NodeFacts,
  early: Promise<EarlyAnswer | null>,
  askedAt: number,
): Promise<Pick<NodeFacts, 'instance' | 'instanceError'>> {
  // The kernel would take the connection and nobody would ever answer: each look would cost the whole time limit.
  if (facts.postmaster?.isFrozen === true) return { instance: null, instanceError: frozen(node) }
  const endpoint = sqlEndpointOf(node, facts)
  const answer = await early
  if (answer !== null && isSameEndpoint(answer.endpoint, endpoint)) {
    return { instance: answer.instance, instanceError: null }
  }
  // It took the connection and was silent: to ask once more would only double the wait.
  const waitedMs = Date.now() - askedAt
  if (answer === null && waitedMs > longSilenceMs) {
    const error = notAnswering('opening a session', waitedMs)
    return { instance: null, instanceError: error.with({ node: node.name }) }
  }
  try {
    return { instance: await readInstanceFacts(await node.sql(endpoint)), instanceError: null }
  } catch (thrown) {
    return { instance: null, instanceError: asReplctlError(thrown).with({ node: node.name }) }
  }
}

const longSilenceMs = 7_000

function frozen(node: Node): ReplctlError {
  return new ReplctlError('not-answering', `PostgreSQL on ${node.name} is frozen`, {
    detail: 'Its postmaster was stopped by SIGSTOP or a frozen cgroup.',
    node: node.name,
  })
}

/** Where the instance answers, as its postmaster.pid says. */
export function sqlEndpointOf(node: Node, facts: NodeFacts) {
  return {
    socketDirectory: facts.postmaster?.socketDirectory ?? '/tmp',
    port: facts.postmaster?.port ?? node.settings.postgres.port,
    binDirectory: facts.binaries?.directory ?? node.settings.postgres.binDir ?? '',
  }
}

function unreachableNode(node: Node, error: ReplctlError): NodeFacts {
  return { ...readHostFacts(node, '', Date.now()), unreachable: error }
}

/** Reads what {@link factsScript} printed. */
export function readHostFacts(node: Node, output: string, askedAtMs: number): NodeFacts {
  const sections = readSections(output)
  const get = (name: string) => sections.get(name) ?? ''
  const lines = (name: string) =>
    get(name)
      .split('\n')
      .filter((line) => line !== '')
  const dataMajor = get('version') === '' ? null : Number.parseInt(get('version'), 10)
  const found = lines('installed').flatMap((line) => {
    const [directory = '', text = ''] = line.split('\t')
    // Two digits: a 9.x that was left there is of no use to anybody.
    if (!/^postgres \(PostgreSQL\) \d\d/.test(text)) return []
    const version = parsePostgresVersion(text)
    return [{ directory, major: version.major, minor: version.minor, version: version.text }]
  })
  const configDirectory = get('config') || node.settings.postgres.dataDir
  // A cluster of Debian's whose data directory is empty is started by the programs of its version, whatever else is there.
  const [, registered] = /^\/etc\/postgresql\/(\d+)\//.exec(configDirectory) ?? []
  const ofDebian = registered === undefined ? undefined : Number(registered)
  const wanted = dataMajor ?? node.settings.postgres.version ?? ofDebian
  const { known } = node
  const installed = known?.installed ?? found
  const suitable = installed.filter((one) => wanted === undefined || one.major === wanted)
  const signals = lines('signal')
  const clock = Number(get('clock'))
  const [free = null, walFree = null] = lines('disk').flatMap(availableBytes)
  const isStandbyByRecoveryConf = /^\s*standby_mode\s*=?\s*'?(on|true|yes|1)/m.test(get('recovery-conf'))
  return {
    name: node.name,
    unreachable: null,
    hostName: known?.hostName ?? get('host'),
    home: get('home'),
    clockOffsetMs: known?.clockOffsetMs ?? (clock > 0 ? Math.round(clock - askedAtMs) : 0),
    dataDirectoryState: (get('directory') || 'missing') as NodeFacts['dataDirectoryState'],
    dataDirectoryInode: get('inode'),
    configDirectory,
    installed,
    binaries: suitable.toSorted((a, b) => b.major - a.major)[0] ?? null,
    dataMajor,
    control: readControlData(get('control')),
    postmaster: readPostmaster(get('postmaster'), lines('process')),
    ...(signals.includes('unwritable') ? { isUnwritable: true } : {}),
    hasStandbySignal: signals.includes('standby.signal') || isStandbyByRecoveryConf,
    recoveryConf: get('recovery-conf'),
    standbyConf: get('standby-conf'),
    autoConf: get('auto-conf'),
    hasRewindInProgress: signals.includes('rewinding'),
    rejoin: readJson<RejoinMark>(get('rejoin')),
    hasPassfile: signals.includes('passfile'),
    hasGuardScript: signals.includes('guard'),
    isStartGuarded: isGuarded(node, get('guarded-by')),
    freeBytes: known?.freeBytes ?? free,
    walFreeBytes: known?.walFreeBytes ?? walFree,
    mark: readJson<NodeMark>(get('mark')),
    record: readJson<ClusterRecord>(get('record')),
    fence: readJson<FenceMark>(get('fence')),
    archiveScripts: readArchiveScripts(lines('archive-scripts')),
    archiveError: parseArchiveError(`${get('archive-error')}\n`) ?? null,
    journal: get('journal') === '' ? null : get('journal'),
    ended: lines('ended'),
    holder: get('holder') === '' ? null : get('holder'),
    instance: null,
    instanceError: null,
  }
}

/** Of one line of `df -Pk`; its head has none. */
function availableBytes(line: string): readonly number[] {
  const available = line.trim().split(/\s+/)[3] ?? ''
  return /^\d+$/.test(available) ? [Number(available) * 1024] : []
}

/** The guard is named by what starts the server: Debian's pg_ctl.conf, a unit's drop-in, the commands of the inventory. */
function isGuarded({ settings }: Node, text: string): boolean {
  const { service } = settings.postgres
  const started = typeof service === 'object' ? `${text}\n${service.start}` : text
  return [guardFiles.guard, guardFiles.server].some((name) =>
    started.includes(`${settings.stateDir}/${name}`),
  )
}

function readArchiveScripts(lines: readonly string[]): ArchiveScripts {
  const connectionOf = (script: string) => {
    const line = lines.find((one) => one.startsWith(`${script} `))
    return line === undefined ? null : line.slice(script.length + 1).replaceAll("'", '')
  }
  return { push: connectionOf(archiveFiles.push), fetch: connectionOf(archiveFiles.fetch) }
}

/** pg_control as far as this host's pg_controldata can read it (one of another major version cannot). */
function readControlData(text: string): NodeFacts['control'] {
  try {
    return text === '' ? null : parseControlData(text)
  } catch {
    return null
  }
}

function readPostmaster(file: string, process: readonly string[]): PostmasterFacts | null {
  if (file === '') return null
  const pid = parsePostmasterPid(file)
  if (pid === undefined) return null
  return {
    pid: pid.pid,
    isAlive: process.includes('alive'),
    isFrozen: process.includes('state T'),
    port: pid.port ?? null,
    socketDirectory: pid.socketDirectory ?? null,
    status: pid.status ?? '',
  }
}

function readJson<T>(text: string): T | null {
  try {
    return text === '' ? null : (JSON.parse(text) as T)
  } catch {
    return null
  }
}

function readSections(output: string): Map<string, string> {
  const sections = new Map<string, string>()
  for (const match of output.matchAll(/^@@([a-z-]+)\n([\s\S]*?)\n@@$/gm)) {
    sections.set(match[1] ?? '', (match[2] ?? '').replace(/\n$/, ''))
  }
  return sections
}
