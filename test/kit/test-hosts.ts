import type { ChildProcess } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { chmod, mkdir, readFile as readLocalFile, rm, writeFile as writeLocalFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ExecOptions, Hosts, InstancePlace, SshAccess, WriteOptions } from './hosts.ts'
import { dropRules, type LinkCut, shapeRate } from './links.ts'
import { describeFailure, exitOf, type FinishedProcess, runChecked, runProcess } from './run-process.ts'
import { knownHostsLines, makeKeyPair, sshArguments } from './ssh-keys.ts'
import { type HostSpec, inNetworkOf, ipBatch, machinePath, TestHost } from './test-host.ts'
import { connectControlHost, controlInterface, layersOf, removeLeftovers, startHolder } from './test-run.ts'

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
