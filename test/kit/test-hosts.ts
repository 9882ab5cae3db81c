import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { chmod, mkdir, readFile as readLocalFile, rm, writeFile as writeLocalFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { awaitCondition } from './await-condition.ts'
import { holderScript } from './host-scripts.ts'
import type { ExecOptions, Hosts, InstancePlace, SshAccess, WriteOptions } from './hosts.ts'
import { layerFolder, layerFolders } from './hosts-available.ts'
import { dropRules, type LinkCut, shapeRate } from './links.ts'
import { describeFailure, exitOf, type FinishedProcess, runChecked, runProcess } from './run-process.ts'
import { knownHostsLines, makeKeyPair, sshArguments } from './ssh-keys.ts'
import { type HostSpec, inNetworkOf, ipBatch, machinePath, TestHost } from './test-host.ts'

export interface TestHostsOptions {
  readonly hosts: readonly HostSpec[]
  /** The hosts live on when this process ends; `destroyKept` ends them. For trials by hand. */
  readonly keep?: boolean
}

/** Names the other end of a link: another host, the control host, or (undefined) everybody. */
export type LinkPeer = string | 'control' | undefined

/**
 * Hosts in namespaces of their own on this machine: each with its own network address, processes, users, files and
 * sshd on port 22, reachable from the test process. Needs root.
 */
export class TestHosts implements Hosts {
  readonly kind = 'namespaces'
  readonly names: readonly string[]
  readonly directory: string
  readonly identityFile: string
  readonly knownHostsFile: string
  /** The control host as the test hosts see it, e.g. `10.123.7.1`. */
  readonly controlAddress: string
  readonly #holder: ChildProcess
  readonly #hosts: ReadonlyMap<string, TestHost>
  readonly #cuts = new Map<string, LinkCut[]>()
  readonly #rates = new Map<string, string>()

  private constructor(holder: ChildProcess, directory: string, subnet: string, specs: readonly HostSpec[]) {
    this.#holder = holder
    this.directory = directory
    this.identityFile = join(directory, 'id_ed25519')
    this.knownHostsFile = join(directory, 'known_hosts')
    this.controlAddress = `${subnet}.1`
    this.names = specs.map(({ name }) => name)
    this.#hosts = new Map(specs.map((spec, index) => [spec.name, this.#place(spec, index, subnet)]))
  }

  /** Boots the hosts. */
  static async create(options: TestHostsOptions): Promise<TestHosts> {
    await removeLeftovers()
    const { holder, directory } = await startHolder(options.keep ?? false)
    try {
      const subnet = await connectControlHost(holder.pid!)
      const hosts = new TestHosts(holder, directory, subnet, options.hosts)
      await hosts.#bootAll()
      return hosts
    } catch (error) {
      process.kill(-holder.pid!, 'SIGKILL')
      await exitOf(holder)
      await removeLeftovers()
      throw error
    }
  }

  loginOf(host: string): string {
    return this.#host(host).spec.login ?? 'postgres'
  }

  addressOf(host: string): string {
    return this.#host(host).place.address
  }

  postgresOf(host: string): InstancePlace {
    this.#host(host)
    return { port: 5432, dataDir: '/var/lib/postgresql/15/shop', osUser: 'postgres' }
  }

  sshConfigFor(host: string, user = this.loginOf(host)): SshAccess {
    const { identityFile, knownHostsFile } = this
    return { host: this.addressOf(host), port: 22, user, identityFile, knownHostsFile }
  }

  /** Whether the host has power. */
  isOn(host: string): boolean {
    return this.#host(host).isOn
  }

  /** Pid of the host's init as this machine sees it: for `nsenter`. */
  initPid(host: string): number {
    return this.#host(host).pid
  }

  async exec(
    host: string,
    command: string | readonly string[],
    options: ExecOptions = {},
  ): Promise<FinishedProcess> {
    const { user = 'root', env = {}, check = true, input, timeoutMs } = options
    const account = this.#host(host).users.get(user)
    const environment = Object.entries(env).map(([name, value]) => `${name}=${value}`)
    const argv = [
      ...['--target', String(this.#host(host).pid), '--mount', '--uts', '--ipc', '--net', '--pid', '--'],
      ...['setpriv', `--reuid=${account?.uid ?? user}`, `--regid=${account?.gid ?? user}`, '--init-groups'],
      ...['--reset-env', 'env', 'LANG=C.UTF-8', ...environment],
      ...['sh', '-c', 'cd; exec "$@"', 'sh'],
      ...(typeof command === 'string' ? ['sh', '-c', command] : command),
    ]
    const finished = await runProcess('nsenter', argv, { input, timeoutMs, env: { PATH: machinePath } })
    if (check && finished.exitCode !== 0) {
      const title = typeof command === 'string' ? command : command.join(' ')
      throw new Error(describeFailure(`${host}: ${title}`, finished))
    }
    return finished
  }

  async writeFile(
    host: string,
    path: string,
    content: string | Uint8Array,
    { owner = 'root', mode = 0o644 }: WriteOptions = {},
  ): Promise<void> {
    const script = 'cat >"$1" && chmod "$2" "$1" && chown "$3" "$1"'
    const args = [path, mode.toString(8), owner === 'root' ? owner : `${owner}:`]
    await this.exec(host, ['sh', '-c', script, 'sh', ...args], { input: content })
  }

  async readFile(host: string, path: string): Promise<string> {
    return (await this.exec(host, ['cat', '--', path])).stdout
  }

  async pids(host: string, pattern: string): Promise<number[]> {
    const { stdout } = await this.exec(host, ['ps', '-e', '-ww', '-o', 'pid=,args='])
    const matches = new RegExp(pattern)
    return stdout
      .split('\n')
      .map((line) => /^\s*(\d+) (.*)$/.exec(line))
      .filter((match) => match !== null && match[1] !== '1' && matches.test(match[2]!))
      .map((match) => Number(match![1]))
  }

  async kill(host: string, pid: number, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await this.exec(host, ['kill', '-s', signal.slice(3), String(pid)])
  }

  async ssh(host: string, command: string, options: ExecOptions = {}): Promise<FinishedProcess> {
    const { check = true, input, timeoutMs } = options
    const argv = [...sshArguments(this.sshConfigFor(host, options.user)), command]
    const finished = await runProcess('ssh', argv, { input, timeoutMs })
    if (check && finished.exitCode !== 0) throw new Error(describeFailure(`ssh ${host} ${command}`, finished))
    return finished
  }

  /** Power cut: the link goes down first, then everything on the host is killed at once. The disk stays. */
  async powerOff(host: string): Promise<void> {
    await this.#host(host).cutPower()
  }

  /** Boots the host again from the same disk, at the same address. Cut and limited links stay so. */
  async powerOn(host: string): Promise<void> {
    if (this.#host(host).isOn) return
    await this.#host(host).boot()
    await this.#applyCuts(host)
    await this.#applyRate(host)
  }

  /**
   * Drops all packets between the host and a peer, both ways, also of open connections; nobody is told.
   * With `port`, only TCP to or from that port of either end.
   */
  async cutLink(host: string, peer?: LinkPeer, options: { readonly port?: number } = {}): Promise<void> {
    const cut = { peer, address: peer && this.#peerAddress(peer), port: options.port }
    this.#cuts.set(host, [...(this.#cuts.get(host) ?? []), cut])
    await this.#applyCuts(host)
  }

  /** Takes back the cuts between the host and this peer; without a peer, all cuts of the host. */
  async restoreLink(host: string, peer?: LinkPeer): Promise<void> {
    const cuts = this.#cuts.get(host) ?? []
    this.#cuts.set(host, peer === undefined ? [] : cuts.filter((cut) => cut.peer !== peer))
    await this.#applyCuts(host)
  }

  /** Limits what the host sends and receives, e.g. to `200mbit`; undefined lifts the limit. */
  async limitLink(host: string, rate: string | undefined): Promise<void> {
    if (rate === undefined) this.#rates.delete(host)
    else this.#rates.set(host, rate)
    await this.#applyRate(host)
  }

  async stopSshd(host: string, options: { readonly sessions?: boolean } = {}): Promise<void> {
    const sessions = options.sessions ? await this.pids(host, '^sshd: ') : []
    const listener = 'kill "$(cat /run/sshd.pid)"; while [ -e /run/sshd.pid ]; do sleep 0.01; done'
    const stop = `[ ! -e /run/sshd.pid ] || { ${listener}; }`
    await this.exec(host, stop)
    if (sessions.length > 0) await this.exec(host, ['kill', '-9', ...sessions.map(String)], { check: false })
  }

  async startSshd(host: string): Promise<void> {
    await this.exec(host, '[ -e /run/sshd.pid ] || /usr/sbin/sshd')
  }

  /** Gives the host new keys, as a re-installed machine has; known_hosts keeps the old ones. */
  async rotateHostKey(host: string): Promise<void> {
    const folder = join(this.#host(host).place.directory, 'new-keys')
    await rm(folder, { recursive: true, force: true })
    await mkdir(folder, { mode: 0o700 })
    await this.#host(host).makeHostKeys(folder)
    for (const name of readdirSync(folder)) {
      const mode = name.endsWith('.pub') ? 0o644 : 0o600
      await this.writeFile(host, `/etc/ssh/${name}`, await readLocalFile(join(folder, name)), { mode })
    }
    await this.stopSshd(host)
    await this.startSshd(host)
  }

  /** Writes known_hosts again, with the keys the hosts have now. */
  async writeKnownHosts(): Promise<void> {
    const all = [...this.#hosts.values()]
    const known = all.map(({ place, publicKeys }) => knownHostsLines(place.address, 22, publicKeys))
    await writeLocalFile(this.knownHostsFile, known.join(''))
  }

  /** Changes the login shell of a user, e.g. to `/usr/bin/fish`. */
  async setLoginShell(host: string, user: string, shell: string): Promise<void> {
    const script = 'awk -F: -v OFS=: \'$1==u{$7=s}1\' u="$1" s="$2" /etc/passwd >/etc/passwd.new'
    const replace = 'chmod 644 /etc/passwd.new && mv /etc/passwd.new /etc/passwd'
    await this.exec(host, ['sh', '-c', `${script} && ${replace}`, 'sh', user, shell])
  }

  /** Fills the file system of a folder to the last byte (meant for a `smallDisk`). */
  async fillDisk(host: string, path: string): Promise<void> {
    const fill =
      'dd if=/dev/zero of="$1/.filler" bs=1M 2>/dev/null; dd if=/dev/zero bs=1k >>"$1/.filler" 2>/dev/null'
    await this.exec(host, ['sh', '-c', `${fill}; sync -f "$1"; chown postgres: "$1/.filler"`, 'sh', path])
  }

  /** Takes back `fillDisk`. */
  async freeDisk(host: string, path: string): Promise<void> {
    await this.exec(host, ['rm', '-f', `${path}/.filler`])
  }

  async destroy(): Promise<void> {
    await Promise.all([...this.#hosts.values()].map((host) => host.cutPower()))
    if (this.#holder.exitCode !== null) return
    // It would go with the holder's network, but only a while later.
    await ipBatch(undefined, [`link delete ${controlInterface(this.controlAddress)}`]).catch(() => {})
    if (this.#holder.stdin) this.#holder.stdin.end()
    else process.kill(-this.#holder.pid!, 'SIGTERM')
    await exitOf(this.#holder)
    await removeLeftovers()
  }

  async #bootAll(): Promise<void> {
    const addresses = new Map([...this.#hosts].map(([name, { place }]) => [name, place.address]))
    const key = await makeKeyPair(this.identityFile, 'ed25519', 'replctl-tests')
    await Promise.all(
      [...this.#hosts.values()].map(async (host) => {
        await host.prepare(addresses, key)
        await host.boot()
      }),
    )
    await this.writeKnownHosts()
    await chmod(this.identityFile, 0o600)
  }

  async #applyCuts(host: string): Promise<void> {
    const cuts = this.#cuts.get(host)
    if (!cuts || !this.#host(host).isOn) return
    await this.#inNetwork(host, ['nft', '-f', '-'], dropRules(cuts))
  }

  async #applyRate(host: string): Promise<void> {
    const { isOn, place, spec } = this.#host(host)
    if (!isOn) return
    const rate = this.#rates.get(host)
    await shapeRate(inNetworkOf(this.#host(spec.name).pid), 'eth0', rate)
    await shapeRate(inNetworkOf(place.switchPid), place.port, rate)
  }

  async #inNetwork(host: string, argv: readonly string[], input: string): Promise<void> {
    const [program, ...args] = [...inNetworkOf(this.#host(host).pid), ...argv]
    await runChecked(program!, args, { input })
  }

  #peerAddress(peer: string): string {
    return peer === 'control' ? this.controlAddress : this.addressOf(peer)
  }

  #host(name: string): TestHost {
    const host = this.#hosts.get(name)
    if (!host) throw new Error(`there is no test host "${name}", only ${this.names.join(', ')}`)
    return host
  }

  #place(spec: HostSpec, index: number, subnet: string): TestHost {
    const number = index + 11
    const third = Number(subnet.split('.')[2])
    const hex = (byte: number) => byte.toString(16).padStart(2, '0')
    return new TestHost(spec, {
      directory: join(this.directory, spec.name),
      run: this.directory,
      layers: join(layersOf(this.directory), spec.name),
      address: `${subnet}.${number}`,
      macAddress: `02:7b:00:00:${hex(third)}:${hex(number)}`, // the same after a reboot: peers remember it
      port: `port${number}`,
      switchPid: this.#holder.pid!,
    })
  }
}

const runName = /^replctl-hosts-(\d+)-(\d+)(-layers)?$/

/** Where the upper layers of a run's hosts lie. */
function layersOf(run: string): string {
  return join(layerFolder(), `${basename(run)}-layers`)
}

/** Removes the directories of runs whose holder was killed before it could tidy up. */
export async function removeLeftovers(): Promise<void> {
  for (const { path, pid, startTime } of runFolders()) {
    if (startTimeOf(pid) === startTime) continue
    await rm(path, { recursive: true, force: true, maxRetries: 5 }).catch(() => {})
  }
}

/**
 * Ends one run that was created with `keep`, named by its directory, and no other: runs of other people are theirs to end.
 * @throws {Error} if there is no such run
 */
export async function destroyKept(directory: string): Promise<void> {
  const run = keptRuns().find(({ path }) => path === directory)
  if (!run) throw new Error(`${directory} is not the directory of test hosts that were kept`)
  process.kill(-run.pid, 'SIGTERM')
  await awaitCondition(`the hosts of ${directory} are gone`, () => startTimeOf(run.pid) !== run.startTime)
  await removeLeftovers()
}

/** The runs that were created with `keep` and live: by directory. */
export function keptRuns(): { readonly path: string; readonly pid: number; readonly startTime: string }[] {
  const isKept = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').endsWith('\0keep\0')
  return runFolders().filter(({ path, pid, startTime }) => {
    return !path.endsWith('-layers') && startTimeOf(pid) === startTime && isKept(pid)
  })
}

/** The directories of all runs, with the pid and the start time of their holders. */
function runFolders(): { readonly path: string; readonly pid: number; readonly startTime: string }[] {
  return [...new Set(layerFolders())].flatMap((folder) =>
    readdirSync(folder).flatMap((name) => {
      const run = runName.exec(name)
      return run ? [{ path: join(folder, name), pid: Number(run[1]), startTime: run[2]! }] : []
    }),
  )
}

/** Clock ticks since boot when a live process started: with the pid, this names a process for good. */
function startTimeOf(pid: number): string | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')
    return fields[0] === 'Z' ? undefined : fields[19]
  } catch {
    return undefined
  }
}

async function startHolder(keep: boolean): Promise<{ holder: ChildProcess; directory: string }> {
  const args = ['--net', 'sh', '-c', holderScript, 'holder', tmpdir(), layerFolder(), keep ? 'keep' : 'test']
  const stdio = [keep ? 'ignore' : 'pipe', 'pipe', 'inherit'] as const
  const holder = spawn('unshare', args, { stdio: [...stdio], detached: true, env: { PATH: machinePath } })
  const lines = createInterface({ input: holder.stdout! })
  const [directory] = await Promise.race([once(lines, 'line'), once(lines, 'close')])
  if (!directory) throw new Error('could not make a network namespace for the test hosts')
  holder.unref()
  for (const pipe of [holder.stdin, holder.stdout]) {
    if (pipe && 'unref' in pipe && typeof pipe.unref === 'function') pipe.unref()
  }
  return { holder, directory }
}

/** Name of the control host's end of a network, unique as its address is: `replctl7` for `10.123.7.1`. */
function controlInterface(address: string): string {
  return `replctl${address.split('.')[2]}`
}

/** Plugs the control host into the switch and returns the run's own subnet, e.g. `10.123.7`. */
async function connectControlHost(switchPid: number): Promise<string> {
  const first = process.pid % 254
  for (let attempt = 0; attempt < 254; attempt++) {
    const number = ((first + attempt) % 254) + 1
    const address = `10.123.${number}.1`
    const name = controlInterface(address)
    try {
      await ipBatch(undefined, [`link add ${name} type veth peer name control netns ${switchPid}`])
    } catch (error) {
      if (String(error).includes('File exists')) continue // another run has this number
      throw error
    }
    await ipBatch(switchPid, ['link set control master br0', 'link set control up'])
    await ipBatch(undefined, [`address add ${address}/24 dev ${name}`, `link set ${name} up`])
    return `10.123.${number}`
  }
  throw new Error('all 254 networks for test hosts are taken')
}
