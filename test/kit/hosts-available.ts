import { spawnSync } from 'node:child_process'
import { accessSync, constants, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { machinePath } from './test-host.ts'

/** Which test hosts this machine can have; `reason` says why not the better kind. */
export type HostsAvailable =
  | { readonly kind: 'namespaces' }
  | { readonly kind: 'loopback'; readonly reason: string }
  | { readonly kind: 'none'; readonly reason: string }

let known: HostsAvailable | undefined

/** Looks once what this machine allows, by trying it; takes some 20 ms. */
export function hostsAvailable(): HostsAvailable {
  known ??= look()
  return known
}

/** Programs that hosts in namespaces need, beside PostgreSQL. */
const programs = [
  'unshare',
  'nsenter',
  'setpriv',
  'ip',
  'tc',
  'nft',
  'sshd',
  'ssh',
  'ssh-keygen',
  'ps',
  'pivot_root',
]

/** Makes one of each namespace, a root of its own, a switch with a cable, and lets everything vanish again. */
const trial = `
set -e
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
ip link add trial type bridge
ip link add cable type veth peer name other
printf 'table inet t\n' | nft -f -
tc qdisc add dev cable root tbf rate 1mbit burst 16kb latency 50ms
`

function look(): HostsAvailable {
  const reason = whyNoNamespaces()
  if (reason === undefined) return { kind: 'namespaces' }
  const missing = missingOf(['sshd', 'ssh', 'ssh-keygen', 'ps'])
  if (missing.length > 0) return { kind: 'none', reason: `${missing.join(', ')} missing` }
  return { kind: 'loopback', reason }
}

function whyNoNamespaces(): string | undefined {
  if (process.platform !== 'linux') return 'not on Linux'
  if (process.getuid?.() !== 0) return 'not root'
  const missing = missingOf(programs)
  if (missing.length > 0) return `${missing.join(', ')} missing`
  if (!/^postgres:/m.test(readFileSync('/etc/passwd', 'utf8'))) return 'PostgreSQL is not installed'
  for (const folder of layerFolders()) if (tryLayersIn(folder) === undefined) return undefined
  return `this machine does not allow namespaces: ${tryLayersIn(tmpdir())}`
}

/** Where the upper layers of the hosts' roots may lie: an overlay, as the root of a container is, cannot hold them. */
export function layerFolders(): string[] {
  return [tmpdir(), '/var/tmp', '/dev/shm']
}

/** The first folder that can hold the upper layers of the hosts' roots. */
export function layerFolder(): string {
  const found = layerFolders().find((folder) => tryLayersIn(folder) === undefined)
  if (!found) throw new Error('no folder of this machine can hold an upper layer of an overlay')
  return found
}

const tried = new Map<string, string | undefined>()

/** Returns what the machine complains about, undefined if nothing. */
function tryLayersIn(folder: string): string | undefined {
  if (!tried.has(folder)) {
    const work = mkdtempSync(join(folder, 'replctl-trial-'))
    const kinds = ['--mount', '--uts', '--ipc', '--net', '--pid', '--fork']
    const args = [...kinds, 'sh', '-c', trial, 'trial', work]
    const { status, stderr, error } = spawnSync('unshare', args, {
      encoding: 'utf8',
      env: { PATH: machinePath },
    })
    rmSync(work, { recursive: true, force: true })
    tried.set(folder, status === 0 ? undefined : (stderr || String(error)).trim().split('\n').at(-1))
  }
  return tried.get(folder)
}

function missingOf(names: readonly string[]): string[] {
  const folders = `${process.env.PATH ?? ''}${delimiter}${machinePath}`.split(delimiter)
  const isThere = (path: string) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  }
  return names.filter((name) => !folders.some((folder) => isThere(join(folder, name))))
}
