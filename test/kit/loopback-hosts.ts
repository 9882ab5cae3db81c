import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { awaitCondition } from './await-condition.ts'
import type { ExecOptions, Hosts, InstancePlace, SshAccess, WriteOptions } from './hosts.ts'
import { describeFailure, exitOf, type FinishedProcess, runChecked, runProcess } from './run-process.ts'
import { knownHostsLines, makeKeyPair, sshArguments } from './ssh-keys.ts'
import { machinePath } from './test-host.ts'

interface LoopbackHost {
  readonly name: string
  readonly directory: string
  readonly address: string
  readonly sshPort: number
  readonly postgresPort: number
}

/**
 * The fallback where namespaces are not allowed: one sshd per host on the loopback interface, all sharing the
 * machine, one user (whoever runs the tests; postgres, if that is root) and its processes. No power cuts, no cut links.
 */
export class LoopbackHosts implements Hosts {
  readonly kind = 'loopback'
  readonly names: readonly string[]
  readonly directory: string
  readonly identityFile: string
  readonly knownHostsFile: string
  readonly #hosts: ReadonlyMap<string, LoopbackHost>
  readonly #servers = new Map<string, ChildProcess>()
  readonly #osUser = process.getuid?.() === 0 ? 'postgres' : userInfo().username

  private constructor(directory: string, hosts: readonly LoopbackHost[]) {
    this.directory = directory
    this.identityFile = join(directory, 'id_ed25519')
    this.knownHostsFile = join(directory, 'known_hosts')
    this.names = hosts.map(({ name }) => name)
    this.#hosts = new Map(hosts.map((host) => [host.name, host]))
  }

  static async create(options: {
    readonly hosts: readonly { readonly name: string }[]
  }): Promise<LoopbackHosts> {
    const directory = await mkdtemp(join(tmpdir(), 'replctl-loopback-'))
    const ports = await freePorts(options.hosts.length * 2)
    const hosts = new LoopbackHosts(
      directory,
      options.hosts.map(({ name }, index) => ({
        name,
        directory: join(directory, name),
        address: process.platform === 'linux' ? `127.0.0.${index + 2}` : '127.0.0.1',
        sshPort: ports[index * 2]!,
        postgresPort: ports[index * 2 + 1]!,
      })),
    )
    await hosts.#prepare()
    return hosts
  }

  loginOf(host: string): string {
    this.#host(host)
    return this.#osUser
  }

  addressOf(host: string): string {
    return this.#host(host).address
  }

  isOn(host: string): boolean {
    this.#host(host)
    return true
  }

  postgresOf(host: string): InstancePlace {
    const { directory, postgresPort } = this.#host(host)
    return {
      port: postgresPort,
      dataDir: join(directory, 'data/shop'),
      osUser: this.#osUser,
      socketDirectory: join(directory, 'socket'),
    }
  }

  sshConfigFor(host: string, user = this.#osUser): SshAccess {
    const { address, sshPort } = this.#host(host)
    const { identityFile, knownHostsFile } = this
    return { host: address, port: sshPort, user, identityFile, knownHostsFile }
  }

  async exec(
    host: string,
    command: string | readonly string[],
    options: ExecOptions = {},
  ): Promise<FinishedProcess> {
    const { env = {}, check = true, input, timeoutMs } = options
    const change = ['setpriv', `--reuid=${this.#osUser}`, `--regid=${this.#osUser}`, '--init-groups']
    const isOther = this.#osUser !== userInfo().username && options.user === this.#osUser
    const words = typeof command === 'string' ? ['sh', '-c', command] : command
    const [program, ...args] = isOther ? [...change, ...words] : words
    const home = join(this.#host(host).directory, 'home')
    const finished = await runProcess(program!, args, {
      input,
      timeoutMs,
      cwd: home,
      env: { PATH: machinePath, HOME: home, USER: this.#osUser, LANG: 'C.UTF-8', ...env },
    })
    if (check && finished.exitCode !== 0)
      throw new Error(describeFailure(`${host}: ${words.join(' ')}`, finished))
    return finished
  }

  async writeFile(
    _host: string,
    path: string,
    content: string | Uint8Array,
    { mode = 0o644 }: WriteOptions = {},
  ): Promise<void> {
    await writeFile(path, content)
    await chmod(path, mode)
    await this.#giveAway(path)
  }

  async readFile(_host: string, path: string): Promise<string> {
    return readFile(path, 'utf8')
  }

  /** Processes of the machine that name this host's folder in their command line, and match. */
  async pids(host: string, pattern: string): Promise<number[]> {
    const { stdout } = await this.exec(host, ['ps', '-e', '-ww', '-o', 'pid=,args='])
    const matches = new RegExp(pattern)
    return stdout
      .split('\n')
      .map((line) => /^\s*(\d+) (.*)$/.exec(line))
      .filter((match) => match?.[2]?.includes(this.#host(host).directory) && matches.test(match[2]))
      .map((match) => Number(match![1]))
  }

  async kill(host: string, pid: number, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.#host(host)
    process.kill(pid, signal)
  }

  async ssh(host: string, command: string, options: ExecOptions = {}): Promise<FinishedProcess> {
    const { check = true, input, timeoutMs } = options
    const argv = [...sshArguments(this.sshConfigFor(host, options.user)), command]
    const finished = await runProcess('ssh', argv, { input, timeoutMs })
    if (check && finished.exitCode !== 0) throw new Error(describeFailure(`ssh ${host} ${command}`, finished))
    return finished
  }

  async startSshd(host: string): Promise<void> {
    if (this.#servers.has(host)) return
    const { directory, address, sshPort } = this.#host(host)
    const args = ['-c', serverScript, 'sshd', await sshdPath(), directory]
    const server = spawn('sh', args, { stdio: ['pipe', 'ignore', 'inherit'], detached: true })
    this.#servers.set(host, server)
    server.unref()
    if ('unref' in server.stdin && typeof server.stdin.unref === 'function') server.stdin.unref()
    await awaitCondition(`sshd of ${host} listens`, () => answers(address, sshPort), { timeoutMs: 10_000 })
  }

  async stopSshd(host: string, options: { readonly sessions?: boolean } = {}): Promise<void> {
    const server = this.#servers.get(host)
    if (!server) return
    if (options.sessions) await writeFile(join(this.#host(host).directory, 'end-sessions'), '')
    this.#servers.delete(host)
    server.stdin?.end()
    await exitOf(server)
  }

  async destroy(): Promise<void> {
    for (const host of this.names) await this.stopSshd(host, { sessions: true })
    await runProcess('sh', ['-c', removeScript, 'remove', this.directory])
  }

  async #prepare(): Promise<void> {
    const key = await makeKeyPair(this.identityFile, 'ed25519', 'replctl-tests')
    await chmod(this.directory, 0o755)
    const known: string[] = []
    for (const { name, directory, address, sshPort } of this.#hosts.values()) {
      for (const folder of ['home', 'data', 'socket']) {
        await mkdir(join(directory, folder), { recursive: true })
        await this.#giveAway(join(directory, folder))
      }
      const hostKey = await makeKeyPair(join(directory, 'host_key'), 'ed25519', name)
      known.push(knownHostsLines(address, sshPort, [hostKey]))
      await writeFile(join(directory, 'authorized_keys'), `${key}\n`)
      await writeFile(join(directory, 'sshd_config'), sshdConfig(directory, address, sshPort))
    }
    await writeFile(this.knownHostsFile, known.join(''))
    if (process.getuid?.() === 0) await mkdir('/run/sshd', { recursive: true })
    for (const host of this.names) await this.startSshd(host)
  }

  async #giveAway(path: string): Promise<void> {
    if (this.#osUser !== userInfo().username) await runChecked('chown', [`${this.#osUser}:`, path])
  }

  #host(name: string): LoopbackHost {
    const host = this.#hosts.get(name)
    if (!host) throw new Error(`there is no test host "${name}", only ${this.names.join(', ')}`)
    return host
  }
}

/** Runs sshd until standard input ends: that comes also when the test process is killed. */
const serverScript = `
"$1" -D -f "$2/sshd_config" </dev/null &
listener=$!
cat >/dev/null
[ -e "$2/end-sessions" ] && kill -s KILL $(ps -o pid= --ppid "$listener") 2>/dev/null
kill "$listener"
wait "$listener"
exit 0
`

/** Kills the instances whose data directories lie in a folder, then removes the folder. */
const removeScript = `
find "$1" -name postmaster.pid | while read -r file; do
  read -r pid <"$file" && kill -s KILL "$pid" $(ps -o pid= --ppid "$pid") 2>/dev/null
done
for attempt in 1 2 3 4 5; do
  rm -rf -- "$1" 2>/dev/null && exit 0
  sleep 0.1
done
`

/** With PAM an account whose password is locked, as Debian's postgres has it, may log in by key; but it needs root. */
function sshdConfig(directory: string, address: string, port: number): string {
  return `Port ${port}
ListenAddress ${address}
HostKey ${directory}/host_key
PidFile none
AuthorizedKeysFile ${directory}/authorized_keys
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM ${process.getuid?.() === 0 ? 'yes' : 'no'}
PrintMotd no
SetEnv HOME=${directory}/home
Subsystem sftp internal-sftp
`
}

async function sshdPath(): Promise<string> {
  const env = { PATH: `${process.env.PATH}:${machinePath}` }
  return (await runChecked('sh', ['-c', 'command -v sshd'], { env })).trim() // sshd wants to be called by its full path
}

async function answers(address: string, port: number): Promise<boolean> {
  const socket = connect(port, address)
  try {
    await once(socket, 'connect')
    return true
  } finally {
    socket.destroy()
  }
}

/** Ports that are free now, below the range from which outgoing connections take theirs. */
async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = []
  for (let port = 20_000 + (process.pid % 1000) * 10; ports.length < count; port++) {
    const probe = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      probe.once('error', () => resolve(false))
      probe.listen(port, '0.0.0.0', () => resolve(true))
    })
    probe.close()
    if (isFree) ports.push(port)
  }
  return ports
}
