import type { HostProbe } from '../cluster/doctor-facts.ts'
import type { NodeFacts } from '../cluster/facts.ts'
import { shellScript } from '../command.ts'
import { asReplctlError } from '../errors.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { listenArgs, listenScript } from './listen-script.ts'
import type { Node } from './node.ts'
import { serviceOf } from './service.ts'
import { checkGuard } from './start-guard.ts'
import { sqlEndpointOf } from './survey.ts'

/** No look of `doctor` at a host that answers takes longer: with dead hosts beside it the whole is to stay quick. */
const limitMs = 4_000

const probeScript = `
bin=$1 data=$2 state=$3 programs=$4; shift 4
say() { printf '%s\\t%s\\n' "$1" "$2"; }
now=$(date +%s%3N 2>/dev/null); case $now in ''|*[!0-9]*) ;; *) say clock "$now" ;; esac
if [ -n "$bin" ]; then for name in $programs; do [ -x "$bin/$name" ] || say no-program "$name"; done; fi
for name in flock base64 awk sed grep cp mv df cmp; do command -v "$name" >/dev/null 2>&1 || say no-tool "$name"; done
# On a file system that holds no pages to write: a busy disk may take minutes for its own.
sync -f /dev/null 2>/dev/null || say no-tool 'sync -f'
env -i true 2>/dev/null || say no-tool 'env -i'
locale -a 2>/dev/null | while IFS= read -r name; do say locale "$name"; done
at=$data
while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
if [ -d "$at" ] && [ -w "$at" ] && [ -x "$at" ]; then say place "$at"; else say no-place "$at"; fi
[ ! -e "$data/lost+found" ] || say lost-found "$data"
case $state in /*) at=$state ;; *) at=$HOME/$state ;; esac
state=$at
while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
if [ ! -d "$at" ] || [ ! -w "$at" ] || [ ! -x "$at" ] || { [ "$at" = "$state" ] && [ ! -O "$at" ]; }; then say no-state "$at"; fi
for at in "$data/pg_wal/" "$state"; do
  while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
  printf 'room\\t%s\\t%s\\n' "$at" "$(df -Pk -- "$at" 2>/dev/null | tail -n 1)"
done
( ${listenScript} ) | while IFS= read -r line; do say listener "$line"; done
`

/** Tries on a host what replctl will need there. It changes nothing. */
export async function probeHost(node: Node, facts: NodeFacts): Promise<HostProbe> {
  const { stateDir } = node.settings
  const { dataDir, service } = node.settings.postgres
  const programs = ['postgres', 'initdb', 'pg_ctl', 'pg_controldata', 'psql', 'pg_basebackup', 'pg_rewind']
  const verifies = capabilitiesOf(facts.binaries?.major ?? 0).backupManifest
  const command = shellScript('try what is needed on the host', probeScript, [
    ...[facts.binaries?.directory ?? '', dataDir, stateDir],
    [...programs, ...(verifies ? ['pg_verifybackup'] : [])].join(' '),
    ...listenArgs(node.settings.postgres),
  ])
  const askedAt = Date.now()
  const [output, loginUser, forwards, rootRefusal, guard] = await Promise.all([
    node.output(command, { timeoutMs: limitMs }).then((text) => ({ text, endedAt: Date.now() })),
    node.output(shellScript('ask who we are', 'id -un', [], { runAs: 'login' }), { timeoutMs: limitMs }),
    tryForwarding(node, facts),
    service === 'systemd' ? tryRoot(node) : null,
    facts.hasGuardScript ? tryGuard(node) : null,
  ])
  const lines = output.text.split('\n').map((line) => line.split('\t'))
  const all = (name: string) => lines.flatMap(([key, value = '']) => (key === name ? [value] : []))
  const clock = Number(all('clock')[0] ?? Number.NaN)
  const listeners = all('listener')
  return {
    loginUser: loginUser.trim(),
    clockOffsetMs: Number.isNaN(clock) ? null : Math.round(clock - (askedAt + output.endedAt) / 2),
    clockDoubtMs: Math.ceil((output.endedAt - askedAt) / 2),
    missingPrograms: all('no-program'),
    missingTools: all('no-tool'),
    locales: all('locale'),
    place: { path: [...all('place'), ...all('no-place')][0] ?? dataDir, isWritable: all('place').length > 0 },
    hasLostFound: all('lost-found').length > 0,
    noState: all('no-state')[0] ?? null,
    rooms: lines.flatMap(([key, path = '', line = '']) => (key === 'room' ? readRoom(path, line) : [])),
    listener:
      listeners.length === 0
        ? null
        : { dataDirectory: listeners.find((line) => line.startsWith('data '))?.slice(5) ?? null },
    forwards,
    rootRefusal,
    service: facts.binaries === null ? null : serviceOf(node, facts, facts.binaries.directory).name,
    guard,
  }
}

/** What `df -Pk` says of one path. */
function readRoom(path: string, line: string): HostProbe['rooms'] {
  const [, freeKb, mountPoint] = / +(-?\d+) +\S+ +(\/.*)$/.exec(line) ?? []
  if (freeKb === undefined || mountPoint === undefined) return []
  return [{ path: path.replace(/(?<=.)\/$/, ''), mountPoint, freeBytes: Number(freeKb) * 1024 }]
}

/** SQL goes through a forwarded socket where replctl logs in as the OS user; else psql on the host is used anyway. */
async function tryForwarding(node: Node, facts: NodeFacts): Promise<boolean | null> {
  if (facts.instance === null || !node.transport.socketPeerIsOsUser) return null
  const { socketDirectory, port } = sqlEndpointOf(node, facts)
  try {
    const socket = await node.transport.openUnixSocket(`${socketDirectory}/.s.PGSQL.${port}`)
    socket.destroy()
    return true
  } catch {
    return false
  }
}

/** The guard asks the other nodes for real; hosts that are off cost it what they would cost a start. */
async function tryGuard(node: Node): Promise<HostProbe['guard']> {
  try {
    return await checkGuard(node, { timeoutMs: limitMs })
  } catch (thrown) {
    const error = asReplctlError(thrown)
    // One node that takes the connection and is silent costs it more than there is time for: that is no fault of it.
    return error.code === 'timeout' ? null : { works: false, said: error.message }
  }
}

async function tryRoot(node: Node): Promise<string | null> {
  try {
    await node.run(shellScript('try root', 'true', [], { runAs: 'root' }), { timeoutMs: limitMs })
    return null
  } catch (thrown) {
    const error = asReplctlError(thrown)
    return `${error.message}. ${error.hint ?? ''}`.trim()
  }
}
