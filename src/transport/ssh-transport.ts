import type { Duplex } from 'node:stream'
import type { SshSettings } from '../cluster/inventory.ts'
import { shellScript } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import type { LaunchPad } from './command-launcher.ts'
import { settlesWithin } from './deferred.ts'
import type { Launch } from './piped-process.ts'
import { runCommand } from './run-command.ts'
import { createChannelLauncher } from './ssh-channels.ts'
import { openSshConnection, type SshConnection } from './ssh-connection.ts'
import { startCommand } from './start-command.ts'
import type { ConnectOptions, Transport, TransportObserver } from './transport.ts'
import { asConnectedSocket, brokenLink, socketRefused } from './unix-socket.ts'

export interface SshTransportOptions {
  /** As in the inventory: an address, a name, or a Host of ~/.ssh/config. */
  readonly host: string
  readonly settings: SshSettings
  readonly osUser: string
  readonly observer?: TransportObserver | undefined
  /** `SSH_AUTH_SOCK`, `REPLCTL_SSH_PASSPHRASE`, and what `ssh -G` may need. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Home directory of whoever runs replctl. */
  readonly home: string
  /** Called when a connection is being made: what else there is to do may be done meanwhile. */
  readonly onDialling?: (() => void) | undefined
}

interface Link {
  readonly connection: SshConnection
  readonly launch: Launch
}

/** Reaches a host by SSH: one connection for all its commands and sockets, never made a second time. */
export function createSshTransport(options: SshTransportOptions): Transport {
  return new SshTransport(options)
}

class SshTransport implements Transport {
  readonly host: string
  readonly #options: SshTransportOptions
  readonly #pad: LaunchPad
  #linking: Promise<Link> | undefined
  #loginUser: string | undefined
  #end: 'closed' | 'lost' | undefined
  /** The host could not be reached, or let nobody in. */
  #hasFailed = false
  readonly #sockets = new Set<Duplex>()

  constructor(options: SshTransportOptions) {
    this.host = options.host
    this.#options = options
    this.#pad = {
      host: options.host,
      ready: async () => {
        const { connection } = await this.#link()
        const { loginUser } = connection
        return { loginUser, isRoot: loginUser === 'root', osUser: options.osUser }
      },
      launch: async (line, kind, signal) => (await this.#link()).launch(line, kind, signal),
    }
  }

  /** Known once connected; false before. */
  get socketPeerIsOsUser(): boolean {
    return this.#loginUser === this.#options.osUser
  }

  async connect({ again }: ConnectOptions = {}): Promise<void> {
    if (again === true && this.#hasFailed) this.#linking = undefined
    await this.#link()
  }

  run: Transport['run'] = (command, options = {}) =>
    runCommand(this.#pad, command, options, this.#options.observer)

  start: Transport['start'] = (command, options = {}) =>
    startCommand(this.#pad, command, options, this.#options.observer)

  async openUnixSocket(path: string, isExplained = true): Promise<Duplex> {
    const { connection } = await this.#link()
    try {
      const socket = await forwardSocket(connection, path)
      this.#sockets.add(socket)
      return socket.once('close', () => this.#sockets.delete(socket))
    } catch (error) {
      if (await settlesWithin(connection.lost, 0)) throw this.#gone()
      throw socketRefused(this.host, path, isExplained ? await this.#whyRefused(path, error) : '')
    }
  }

  async close(): Promise<void> {
    this.#end ??= 'closed'
    const link = await this.#linking?.catch(() => undefined)
    await link?.connection.close()
  }

  async #link(): Promise<Link> {
    if (this.#end !== undefined) throw this.#gone()
    this.#linking ??= this.#open()
    return this.#linking
  }

  async #open(): Promise<Link> {
    this.#hasFailed = false
    const connection = await openSshConnection(this.#options).catch((error: unknown) => {
      this.#hasFailed = true
      throw error
    })
    this.#loginUser = connection.loginUser
    connection.lost
      .then(() => {
        this.#end ??= 'lost'
        // A channel tells its end only to someone who reads.
        for (const socket of this.#sockets) socket.destroy(brokenLink())
      })
      .catch(() => {})
    const launch = createChannelLauncher(this.host, connection.client)
    const launchWhileLinked: Launch = async (line, kind, signal) => {
      try {
        return await launch(line, kind, signal)
      } catch (error) {
        if (error instanceof ReplctlError || signal.aborted) throw error
        // A link that breaks refuses commands a moment before it says that it is gone.
        await settlesWithin(connection.lost, 500)
        throw this.#end === undefined ? executionRefused(this.host, error) : this.#gone()
      }
    }
    return { connection, launch: launchWhileLinked }
  }

  #gone(): ReplctlError {
    const isLost = this.#end === 'lost'
    return new ReplctlError('connection-lost', `connection to ${this.host} ${isLost ? 'lost' : 'closed'}`, {
      detail: isLost ? 'It ended or was silent for too long; it is not made a second time.' : undefined,
      hint: isLost ? 'Run the command again.' : undefined,
      retryable: isLost,
    })
  }

  /** sshd says "open failed" whatever the reason; a look at the socket tells more. */
  async #whyRefused(path: string, error: unknown): Promise<string> {
    const script =
      'if [ ! -e "$1" ]; then echo ENOENT; elif [ ! -S "$1" ]; then echo ENOTSOCK; elif [ ! -w "$1" ]; then echo EACCES; fi'
    const look = shellScript(`look at ${path}`, script, [path], { runAs: 'login' })
    const said = await this.run(look, { timeoutMs: 15_000 }).catch(() => undefined)
    const isKnown = said?.status === 0 && said.stdout !== ''
    if (isKnown) return said.stdout.trim()
    const message = error instanceof Error ? error.message : String(error)
    return `Nothing listens on it, or sshd forbids it (AllowStreamLocalForwarding, DisableForwarding): ${message}.`
  }
}

function executionRefused(host: string, cause: unknown): ReplctlError {
  return new ReplctlError('auth-refused', `sshd on ${host} refuses to run commands`, {
    detail: `It answers: ${cause instanceof Error ? cause.message : String(cause)}.`,
    hint: 'Look for ForceCommand, or for a restricted key in authorized_keys there.',
    cause,
  })
}

function forwardSocket({ client }: SshConnection, path: string): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    client.openssh_forwardOutStreamLocal(path, (error, channel) =>
      error ? reject(error) : resolve(asConnectedSocket(channel)),
    )
  })
}
