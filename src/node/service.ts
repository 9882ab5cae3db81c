import type { NodeFacts } from '../cluster/facts.ts'
import { type Command, program, shellScript } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { type Node, stateDirectoryScript } from './node.ts'
import { systemdUnitScript } from './systemd-unit.ts'

/** How an instance is started, stopped, restarted and reloaded on its host. */
export interface Service {
  /** e.g. `pg_ctl`, `pg_ctlcluster 15 main`. */
  readonly name: string
  /** Its stop ends whatever runs in the data directory; else only what it has started itself. */
  readonly stopsByPid: boolean
  readonly start: Command
  readonly stop: Command
  readonly restart: Command
}

/** The server's log goes to where Debian has it, else (and where the inventory names a state directory) beside the state. */
const startScript = `
${stateDirectoryScript}
bin=$2 data=$3 config=$4 log="$state/postgresql.log"
case $1 in /*) ;; *) [ -w /var/log/postgresql ] && log="/var/log/postgresql/postgresql-\${1##*/}.log" ;; esac
set --
if [ "$config" != "$data" ]; then set -- -o "-c config_file=$config/postgresql.conf"; fi
[ -x "$state/guarded-postgres" ] && set -- "$@" -p "$state/guarded-postgres"
tries=0
while :; do
  size=$( [ -f "$log" ] && wc -c < "$log" || echo 0 )
  "$bin/pg_ctl" start -D "$data" -l "$log" -w -t 86400 -s "$@" </dev/null && exit 0
  status=$? said=$(tail -c +$((size + 1)) "$log" 2>/dev/null | tail -n 15) tries=$((tries + 1))
  # Backends outlive a postmaster that was killed by a moment, and are in the way of the next one.
  case $said in *'pre-existing shared memory block'*|*'lock file "postmaster.pid" already exists'*) ;; *) break ;; esac
  [ $tries -lt 20 ] || break
  sleep 0.25 2>/dev/null || sleep 1
done
printf '%s\\n' "$said" >&2
exit $status
`

/** Chooses how this node's instance is served: as the inventory says, else what the host has it registered with. */
export function serviceOf(node: Node, facts: NodeFacts, binDirectory: string): Service {
  const { service, dataDir } = node.settings.postgres
  if (typeof service === 'object') return customService(service)
  const debian = /^\/etc\/postgresql\/(\d+)\/([^/]+)$/.exec(facts.configDirectory)
  if (debian !== null && (service === 'auto' || service === 'pg_ctlcluster')) {
    return clusterService(debian[1] ?? '', debian[2] ?? '')
  }
  if (service === 'systemd') return systemdService(debian, facts, dataDir)
  const start = shellScript(`pg_ctl start -D ${dataDir}`, startScript, [
    ...[node.settings.stateDir, binDirectory, dataDir, facts.configDirectory],
  ])
  const stop = stopByPid(node, binDirectory)
  return {
    name: 'pg_ctl',
    stopsByPid: true,
    start,
    stop,
    restart: shellScript(
      `pg_ctl restart -D ${dataDir}`,
      `"$2/pg_ctl" stop -D "$3" -m fast -w -t 86400 -s </dev/null || exit 1\n${startScript}`,
      start.args,
    ),
  }
}

/** Stops whatever server runs in the node's data directory, whoever started it. */
export function stopByPid(node: Node, binDirectory: string): Command {
  const { dataDir } = node.settings.postgres
  return program(`${binDirectory}/pg_ctl`, [
    ...['stop', '-D', dataDir, '-s', '-w', '-t', '86400', '-m', 'fast'],
  ])
}

function customService(service: { start: string; stop: string; restart?: string | undefined }): Service {
  const command = (line: string) => shellScript(line, line, [], { runAs: 'login' })
  return {
    name: 'the commands of the inventory',
    stopsByPid: false,
    start: command(service.start),
    stop: command(service.stop),
    restart: command(service.restart ?? `${service.stop}\n${service.start}`),
  }
}

/** Debian's own wrapper, so that pg_lsclusters and the packaged configuration stay right. */
function clusterService(version: string, name: string): Service {
  const command = (verb: string, ...args: string[]) =>
    program('/usr/bin/pg_ctlcluster', ['--skip-systemctl-redirect', version, name, verb, ...args])
  return {
    name: `pg_ctlcluster ${version} ${name}`,
    stopsByPid: true,
    start: command('start'),
    stop: command('stop', '-m', 'fast'),
    restart: command('restart', '-m', 'fast'),
  }
}

/** The unit as PGDG's packages call it; Debian's has its cluster's name. */
export function usualUnit(facts: NodeFacts): string {
  return `postgresql-${facts.dataMajor ?? facts.binaries?.major ?? ''}`
}

function systemdService(debian: RegExpExecArray | null, facts: NodeFacts, dataDir: string): Service {
  const unit = debian === null ? usualUnit(facts) : `postgresql@${debian[1]}-${debian[2]}`
  // Another instance may have the usual name.
  const script = `${systemdUnitScript}unit=$(unit_of "$1" "$2") || exit 3; systemctl "$3" "$unit"`
  const command = (verb: string) =>
    debian === null
      ? shellScript(`systemctl ${verb} ${unit}`, script, [dataDir, unit, verb], { runAs: 'root' })
      : program('systemctl', [verb, unit], { runAs: 'root' })
  return {
    name: `systemctl … ${unit}`,
    stopsByPid: false,
    start: command('start'),
    stop: command('stop'),
    restart: command('restart'),
  }
}

/** The error of an instance that did not start, with the end of its log. */
export function startFailed(node: string, service: Service, said: string): ReplctlError {
  return new ReplctlError('start-failed', `could not start PostgreSQL on ${node}`, {
    detail: `${service.name} said: ${said.trim().split('\n').slice(-15).join('\n')}`,
    hint: 'Mend what the log names, then run the command again.',
    node,
  })
}
