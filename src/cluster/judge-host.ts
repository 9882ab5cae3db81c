import { ReplctlError } from '../errors.ts'
import { checksOf, type DoctorCheck } from './doctor-check.ts'
import type { ExaminedNode, HostProbe } from './doctor-facts.ts'
import type { NodeFacts } from './facts.ts'
import { holdsLostFound } from './lost-found.ts'
import { fullBytes } from './room.ts'

/** Below this a PostgreSQL host is about to stop: WAL alone comes in 16 MiB pieces. */
const fewBytes = 2 ** 30

/** What is known of one host by itself: login, programs, tools, data directory, port, disk, service. */
export function judgeHost(node: ExaminedNode, clusterIdentifier: string | null): readonly DoctorCheck[] {
  const { facts, probe } = node
  const { bad } = checksOf(facts.name)
  if (facts.unreachable !== null) {
    const check = facts.unreachable.code === 'sudo-refused' ? 'sudo' : 'ssh'
    return [bad(check, facts.unreachable)]
  }
  if (probe === null) return node.probeError === undefined ? [] : judgeBusy(node, node.probeError)
  return [
    ...judgeLogin(node, probe),
    judgePrograms(node, probe),
    judgeTools(node, probe),
    judgeDataDirectory(node, probe, clusterIdentifier),
    judgePort(node, probe),
    ...judgeSql(node),
    judgeDisk(node, probe),
    ...judgeForwarding(node, probe),
    ...judgeService(node, probe),
  ]
}

/** It let us in and was looked at: it is not unreachable, only slow. */
function judgeBusy({ facts, settings }: ExaminedNode, error: ReplctlError): DoctorCheck[] {
  const { fine, bad } = checksOf(facts.name)
  return [
    fine('ssh', `logged in to ${settings.host}`),
    bad(
      'host',
      error.with({
        hint: 'The host is busy, its disks above all: look again when it is less so.',
        node: facts.name,
      }),
    ),
  ]
}

function judgeLogin({ facts, settings }: ExaminedNode, probe: HostProbe): DoctorCheck[] {
  const { fine, bad } = checksOf(facts.name)
  const { osUser } = settings.postgres
  const { loginUser } = probe
  const isLocal = settings.host === 'local'
  const how = loginUser === 'root' ? 'as root' : `by sudo from "${loginUser}"`
  const root =
    probe.rootRefusal === null
      ? null
      : new ReplctlError('sudo-refused', `"${loginUser}" on ${facts.name} cannot become root`, {
          detail: `postgres.service is systemd, and systemctl needs root. ${probe.rootRefusal}`,
          node: facts.name,
        })
  return [
    fine('ssh', isLocal ? 'this machine, no SSH' : `logged in to ${settings.host} as "${loginUser}"`),
    ...(loginUser === osUser ? [] : [fine('sudo', `commands run as "${osUser}", ${how}`)]),
    ...(root === null ? [] : [bad('sudo', root)]),
  ]
}

const neededPrograms = ['postgres', 'initdb', 'pg_ctl', 'pg_controldata', 'psql', 'pg_basebackup']

function judgePrograms({ facts }: ExaminedNode, { missingPrograms }: HostProbe): DoctorCheck {
  const { fine, bad, doubtful } = checksOf(facts.name)
  const { binaries } = facts
  if (binaries === null) {
    const found = facts.installed.map((one) => `${one.version} in ${one.directory}`).join(', ')
    return bad(
      'programs',
      new ReplctlError('binaries-missing', `found no suitable PostgreSQL programs on ${facts.name}`, {
        detail:
          found === '' ? 'None was found where Debian, PGDG and Homebrew put them.' : `Found: ${found}.`,
        hint: 'Install PostgreSQL there (apt-get install postgresql-15), or set postgres.bin_dir in the inventory.',
        node: facts.name,
      }),
    )
  }
  const where = `PostgreSQL ${binaries.version} in ${binaries.directory}`
  if (missingPrograms.length === 0) return fine('programs', where)
  const isNeeded = missingPrograms.some((name) => neededPrograms.includes(name))
  const error = new ReplctlError('binaries-missing', `${facts.name} lacks ${missingPrograms.join(', ')}`, {
    detail:
      `Not in ${binaries.directory}. ${isNeeded ? '' : 'pg_verifybackup proves a clone, pg_rewind spares a new one after a failover; the rest works without them.'}`.trim(),
    hint: `Install the client and server packages of PostgreSQL ${binaries.major} there.`,
    node: facts.name,
  })
  return (isNeeded ? bad : doubtful)('programs', error, `${where}, without ${missingPrograms.join(', ')}`)
}

/** Without these replctl's scripts make do with less: a lock by directory, a sync of everything. */
const dispensable = ['flock', 'sync -f', 'base64']

function judgeTools({ facts, settings }: ExaminedNode, { missingTools, noState }: HostProbe): DoctorCheck {
  const { fine, bad, doubtful } = checksOf(facts.name)
  if (noState !== null) {
    const error = new ReplctlError('remote-command-failed', `cannot write to ${noState} on ${facts.name}`, {
      detail: `replctl keeps its state there, in ${settings.stateDir}, as the PostgreSQL OS user.`,
      hint: `Have it belong to that user: chown ${settings.postgres.osUser} ${noState}. Or name another place with state_dir.`,
      node: facts.name,
    })
    return bad('tools', error)
  }
  if (missingTools.length === 0)
    return fine('tools', 'flock, sync -f, base64, env -i and the usual ones are there')
  const isNeeded = missingTools.some((name) => !dispensable.includes(name))
  const error = new ReplctlError('binaries-missing', `${facts.name} lacks ${missingTools.join(', ')}`, {
    detail: isNeeded
      ? 'replctl’s scripts need them.'
      : 'replctl makes do without them, with less certainty about what else runs there.',
    hint: 'Install coreutils, util-linux, grep, sed and awk there, as every Debian and RHEL has them.',
    node: facts.name,
  })
  return (isNeeded ? bad : doubtful)('tools', error)
}

function judgeDataDirectory(
  { facts, settings }: ExaminedNode,
  { place, hasLostFound }: HostProbe,
  clusterIdentifier: string | null,
): DoctorCheck {
  const { fine, bad } = checksOf(facts.name)
  const { dataDir, osUser } = settings.postgres
  const check = 'data-directory'
  const refuse = (message: string, detail: string, hint: string) =>
    bad(check, new ReplctlError('foreign-data-directory', message, { detail, hint, node: facts.name }))
  const { dataDirectoryState: state } = facts
  if (state === 'missing' || state === 'empty') {
    if (hasLostFound) return bad(check, holdsLostFound(facts.name, dataDir, 'data_dir'))
    if (place.isWritable) return fine(check, `${dataDir} is ${state} and can be used`)
    return refuse(
      `cannot make ${dataDir} on ${facts.name}`,
      `"${osUser}" may not write to ${place.path}.`,
      `Make it yourself, empty: install -d -m 0700 -o ${osUser} -g ${osUser} ${dataDir}`,
    )
  }
  if (state === 'not-an-instance') {
    return refuse(
      `${dataDir} on ${facts.name} holds something that is not a PostgreSQL instance`,
      'replctl never touches it.',
      'Choose another data_dir, or move those files away.',
    )
  }
  const own = facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier ?? 'unknown'
  const isOurs = clusterIdentifier === null ? facts.mark !== null : own === clusterIdentifier
  const isBeingBuilt = facts.mark !== null && facts.mark.inode === facts.dataDirectoryInode
  if (isOurs || isBeingBuilt)
    return fine(check, `${dataDir}: PostgreSQL ${facts.dataMajor}, system identifier ${own}`)
  return refuse(
    `${dataDir} on ${facts.name} holds an instance that is not of this cluster`,
    `PostgreSQL ${facts.dataMajor}, system identifier ${own}${clusterIdentifier === null ? '' : `; that of the cluster is ${clusterIdentifier}`}.`,
    clusterIdentifier === null
      ? `Take it over: replctl init primary ${facts.name} --adopt. Or choose another data_dir.`
      : 'Choose another data_dir, or move that one away.',
  )
}

function judgePort({ facts, settings }: ExaminedNode, { listener }: HostProbe): DoctorCheck {
  const { fine, bad } = checksOf(facts.name)
  const { port, dataDir } = settings.postgres
  if (facts.postmaster?.isAlive === true && (facts.postmaster.port ?? port) === port) {
    return fine('port', `${port} is that of this node's own instance`)
  }
  const owner = listener?.dataDirectory ?? null
  if (listener === null || owner === dataDir) return fine('port', `${port} is free`)
  const debian = /^\/var\/lib\/postgresql\/(\d+)\/([^/]+)$/.exec(owner ?? '')
  const drop = debian === null ? null : `pg_dropcluster --stop ${debian[1]} ${debian[2]}`
  return bad(
    'port',
    new ReplctlError('port-in-use', `port ${port} on ${facts.name} is in use`, {
      detail:
        owner === null
          ? 'Something listens there.'
          : `The instance in ${owner} has it; this node's is to be ${dataDir}.`,
      hint:
        drop === null
          ? 'Choose another postgres.port, or stop what listens there.'
          : `Installing PostgreSQL made it. If nobody uses it, drop it with its data, as root: ${drop}. Else choose another postgres.port, or adopt it.`,
      node: facts.name,
    }),
  )
}

/** An instance that runs and answers nobody, or not us: no command would get further than its first statement. */
function judgeSql({ facts, settings }: ExaminedNode): DoctorCheck[] {
  const { fine, bad } = checksOf(facts.name)
  const { osUser, database } = settings.postgres
  if (facts.instance !== null) return [fine('sql', `answers "${osUser}" in database "${database}"`)]
  const { instanceError: error } = facts
  if (facts.postmaster?.isAlive !== true || error === null) return []
  return [
    bad(
      'sql',
      error.with({
        hint:
          error.hint ??
          `Look at its log. Over its unix socket the server must let "${osUser}" into database "${database}", as a superuser: local all ${osUser} peer, in pg_hba.conf.`,
        node: facts.name,
      }),
    ),
  ]
}

function judgeDisk({ facts, settings }: ExaminedNode, { rooms }: HostProbe): DoctorCheck {
  const { fine, bad, doubtful } = checksOf(facts.name)
  const tell = (bytes: number, path: string) =>
    `${bytes < 2 ** 27 ? `${Math.floor(bytes / 2 ** 20)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`} are free where ${path} is`
  const { dataDir } = settings.postgres
  const full = rooms.filter(
    (room, index) =>
      room.freeBytes < fewBytes && rooms.findIndex((one) => one.mountPoint === room.mountPoint) === index,
  )
  const isDataFull = facts.freeBytes !== null && facts.freeBytes < fewBytes
  if (facts.freeBytes === null && full.length === 0) return fine('disk', 'free space is unknown')
  const ofData = facts.freeBytes === null ? [] : [tell(facts.freeBytes, dataDir)]
  if (!isDataFull && full.length === 0) return fine('disk', ofData.join(''))
  const free = [
    ...(isDataFull ? ofData : []),
    ...full
      .filter(({ freeBytes }) => !isDataFull || freeBytes !== facts.freeBytes)
      .map(({ freeBytes, path }) => tell(freeBytes, path)),
  ].join(', ')
  const isFull = Math.min(facts.freeBytes ?? fewBytes, ...full.map(({ freeBytes }) => freeBytes)) < fullBytes
  return (isFull ? bad : doubtful)(
    'disk',
    new ReplctlError('disk-full', `${isFull ? 'no' : 'little'} disk space is left on ${facts.name}`, {
      detail: `${free}.`,
      hint: 'A slot keeps WAL while a standby is away. Free some space, or choose another data_dir.',
      node: facts.name,
    }),
    free,
  )
}

function judgeForwarding({ facts }: ExaminedNode, { forwards, loginUser }: HostProbe): DoctorCheck[] {
  const { fine, doubtful } = checksOf(facts.name)
  if (forwards === null) return []
  if (forwards) return [fine('forwarding', 'sshd forwards to the unix socket')]
  const error = new ReplctlError(
    'remote-command-failed',
    `sshd on ${facts.name} does not forward to unix sockets`,
    {
      detail: `SQL goes through psql there instead, as "${loginUser}"; that is a little slower.`,
      hint: 'Allow it in sshd_config: AllowStreamLocalForwarding yes',
      node: facts.name,
    },
  )
  return [doubtful('forwarding', error)]
}

/**
 * What starts the instance, and whether that asks the other nodes first. Without the start guard a primary whose host
 * was off while another node took over would come up read-write beside it.
 */
function judgeService({ facts }: ExaminedNode, { service, guard }: HostProbe): DoctorCheck[] {
  const { fine, doubtful } = checksOf(facts.name)
  if (service === null) return []
  const starter = fine('service', `started by ${service}`)
  const missing = (message: string, detail: string, hint: string) =>
    new ReplctlError('start-guard-missing', message, { detail, hint, node: facts.name })
  if (guard !== null && !guard.works) {
    const error = missing(
      `the start guard on ${facts.name} cannot do its work`,
      `It said: ${guard.said}`,
      'Mend what it names; a primary is not started there before it can ask the other nodes.',
    )
    return [starter, doubtful('start-guard', error)]
  }
  if (facts.isStartGuarded) {
    return [
      starter,
      fine(
        'start-guard',
        guard === null ? 'runs before the server' : `runs before the server: ${guard.said}`,
      ),
    ]
  }
  if (service === 'pg_ctl') {
    const error = missing(
      `nothing starts PostgreSQL on ${facts.name} at boot`,
      'It is started by pg_ctl, which has no place for a start guard.',
      `After a reboot: ${startCommand(facts)}. Or let a service start it: postgres.service. A script of your own can run the guard: docs/fencing.md shows how.`,
    )
    return [doubtful('service', error, 'started by pg_ctl: nothing starts it at boot')]
  }
  // Before it is built there is nothing to guard.
  if (facts.mark?.phase !== 'done') return [starter]
  const error = missing(
    `${service} on ${facts.name} does not run the start guard`,
    guard === null
      ? 'It is not there: the node was built by an older replctl, or its state directory is gone.'
      : 'It lies in the state directory, and nothing there runs it before the server.',
    guard === null
      ? `Render it: ${startCommand(facts)}`
      : 'Let what starts PostgreSQL there run it first: docs/fencing.md shows how.',
  )
  return [starter, doubtful('start-guard', error)]
}

/** What renders and starts a node that is there; for one that is not yet, both. */
function startCommand({ name, instance, dataDirectoryState, hasStandbySignal }: NodeFacts): string {
  const [lead, follow] = [`replctl init primary ${name}`, `replctl add-standby ${name}`]
  if (instance !== null) return instance.isInRecovery ? follow : lead
  if (dataDirectoryState !== 'instance') return `${lead} where it leads, ${follow} where it follows`
  return hasStandbySignal ? follow : lead
}
