import { type ChildProcess, spawn } from 'node:child_process'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { freshPlaces, type HostUser, writeHostFiles } from './host-files.ts'
import { initScript } from './host-scripts.ts'
import { exitOf, runChecked } from './run-process.ts'
import { makeKeyPair } from './ssh-keys.ts'

export interface HostSpec {
  readonly name: string
  /** Who replctl logs in as. Default `postgres`. */
  readonly login?: 'postgres' | 'admin' | 'root'
  /** A folder that is a file system of its own and fills up: owned by postgres, kept over a power cut. */
  readonly smallDisk?: { readonly path: string; readonly sizeMb: number }
  /** Files of the machine this host shall not have, e.g. `/usr/bin/zstd`. */
  readonly without?: readonly string[]
  /** Lines put in front of sshd_config, e.g. `Banner /etc/issue` or `AllowStreamLocalForwarding no`. */
  readonly sshdConfig?: string
}

/** Where a host stands: `directory` keeps its disk, also while it is off. */
export interface HostPlace {
  readonly directory: string
  /** The run's directory. */
  readonly run: string
  /** Keeps what the host's root has that the machine's has not. */
  readonly layers: string
  readonly address: string
  readonly macAddress: string
  /** Its port on the switch. */
  readonly port: string
  readonly switchPid: number
}

const hostKeys = ['ed25519', 'ecdsa'] as const

/** One host: its disk, and while it is on, its init process and its cable. */
export class TestHost {
  readonly spec: HostSpec
  readonly place: HostPlace
  users: ReadonlyMap<string, HostUser> = new Map()
  publicKeys: readonly string[] = []
  #process: ChildProcess | undefined
  #pid: number | undefined

  constructor(spec: HostSpec, place: HostPlace) {
    this.spec = spec
    this.place = place
  }

  get isOn(): boolean {
    return this.#pid !== undefined
  }

  /**
   * Pid of the host's init, as the machine sees it.
   * @throws {Error} while the host is off
   */
  get pid(): number {
    if (this.#pid === undefined) throw new Error(`${this.spec.name} is powered off`)
    return this.#pid
  }

  /** Makes the disk: once, before the first boot. */
  async prepare(addresses: ReadonlyMap<string, string>, authorizedKey: string): Promise<void> {
    const { directory, layers } = this.place
    const upper = join(layers, 'upper')
    for (const folder of [upper, join(layers, 'work'), join(directory, 'root'), join(directory, 'disk')]) {
      await mkdir(folder, { recursive: true })
      await chmod(folder, 0o755) // whatever the umask: the host's / is as its upper layer is
    }
    this.users = await writeHostFiles({
      upper,
      disk: join(directory, 'disk'),
      name: this.spec.name,
      addresses,
      authorizedKey,
      sshdConfig: this.spec.sshdConfig ? `${this.spec.sshdConfig.trim()}\n` : '',
    })
    await writeFile(join(directory, 'init'), initScript)
    await writeFile(join(directory, 'places'), asLines(freshPlaces.map(({ path }) => path)))
    const oddKeys = ['/etc/ssh/ssh_host_rsa_key', '/etc/ssh/ssh_host_rsa_key.pub']
    await writeFile(join(directory, 'without'), asLines([...oddKeys, ...(this.spec.without ?? [])]))
    await writeFile(join(directory, 'volumes'), await this.#makeVolumes())
    await this.makeHostKeys(join(upper, 'etc/ssh'))
  }

  /** Makes new host keys in a folder and remembers their public halves. */
  async makeHostKeys(folder: string): Promise<void> {
    this.publicKeys = await Promise.all(
      hostKeys.map((type) =>
        makeKeyPair(join(folder, `ssh_host_${type}_key`), type, `root@${this.spec.name}`),
      ),
    )
  }

  /** Boots the host and plugs its cable in; sshd listens when this resolves. */
  async boot(): Promise<void> {
    const { directory, run, layers } = this.place
    const init = spawn(
      'unshare',
      [
        ...['--mount', '--uts', '--ipc', '--net', '--pid', '--fork'],
        ...['sh', join(directory, 'init'), directory, run, layers, this.spec.name],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], detached: true, env: { PATH: machinePath } },
    )
    let complaints = ''
    init.stderr.on('data', (chunk) => {
      complaints += chunk
    })
    const answers = createInterface({ input: init.stdout })[Symbol.asyncIterator]()
    const next = async (): Promise<string> => (await answers.next()).value ?? ''
    const pid = /^pid (\d+)$/.exec(await next())
    if (!pid) throw new Error(`${this.spec.name} does not boot: ${complaints}`)
    this.#process = init
    this.#pid = Number(pid[1])
    await this.#plugIn()
    if ((await next()) !== 'ready') throw new Error(`${this.spec.name} does not boot: ${complaints}`)
    init.unref()
    init.stdout.destroy()
    init.stderr.destroy()
  }

  /** Pulls the cable, then the plug: nobody hears a last word. The disk stays. */
  async cutPower(): Promise<void> {
    if (this.#pid === undefined || !this.#process) return
    const [init, pid] = [this.#process, this.#pid]
    this.#process = undefined
    this.#pid = undefined
    await this.#unplug()
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has ended by itself.
    }
    await exitOf(init)
  }

  async #plugIn(): Promise<void> {
    const { port, switchPid, address, macAddress } = this.place
    const peer = `peer name eth0 netns ${this.pid} address ${macAddress}`
    await ipBatch(undefined, [`link add name ${port} netns ${switchPid} type veth ${peer}`])
    await ipBatch(switchPid, [`link set ${port} master br0`, `link set ${port} up`])
    await ipBatch(this.pid, [`address add ${address}/24 dev eth0`, 'link set eth0 up'])
  }

  async #unplug(): Promise<void> {
    await ipBatch(this.place.switchPid, [`link delete ${this.place.port}`]).catch(() => {})
  }

  async #makeVolumes(): Promise<string> {
    const small = this.spec.smallDisk
    if (!small) return ''
    const image = join(this.place.directory, 'small-disk')
    try {
      await runChecked('mkfs.ext4', ['-q', '-m', '0', image, `${small.sizeMb}M`])
      await runChecked('losetup', ['--find'])
      return `${small.path} small-disk\n`
    } catch {
      return `${small.path} tmpfs,${small.sizeMb}m\n` // no loop devices here: then it does not survive a power cut
    }
  }
}

export const machinePath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Runs several `ip` commands at once, in the network namespace of a process or in the machine's own. */
export async function ipBatch(pid: number | undefined, commands: readonly string[]): Promise<void> {
  const argv = [...(pid === undefined ? [] : inNetworkOf(pid)), 'ip', '-batch', '-']
  await runChecked(argv[0]!, argv.slice(1), { input: asLines(commands) })
}

/** The words that put a command into the network namespace of a process. */
export function inNetworkOf(pid: number): string[] {
  return ['nsenter', '--target', String(pid), '--net']
}

function asLines(all: readonly string[]): string {
  return all.map((line) => `${line}\n`).join('')
}
