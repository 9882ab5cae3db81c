import net from 'node:net'
import type { Duplex } from 'node:stream'
import { ReplctlError } from '../errors.ts'
import type { LaunchPad } from './command-launcher.ts'
import { createLocalLauncher } from './local-process.ts'
import { runCommand } from './run-command.ts'
import { startCommand } from './start-command.ts'
import type { Transport, TransportObserver } from './transport.ts'
import { asConnectedSocket, socketRefused } from './unix-socket.ts'

export interface LocalTransportOptions {
  readonly osUser: string
  /** Who this process is. */
  readonly username: string
  readonly uid: number
  readonly observer?: TransportObserver | undefined
}

/** Drives this machine without SSH. */
export function createLocalTransport(options: LocalTransportOptions): Transport {
  const host = 'local'
  const { username, uid, osUser, observer } = options
  const identity = { loginUser: username, isRoot: uid === 0, osUser }
  const launcher = createLocalLauncher()
  let isClosed = false
  const connect = async (): Promise<void> => {
    if (isClosed) throw new ReplctlError('connection-lost', `transport to ${host} closed`)
  }
  const pad: LaunchPad = { host, ready: () => connect().then(() => identity), launch: launcher.launch }
  return {
    host,
    socketPeerIsOsUser: username === osUser,
    connect,
    run: (command, runOptions = {}) => runCommand(pad, command, runOptions, observer),
    start: (command, runOptions = {}) => startCommand(pad, command, runOptions, observer),
    openUnixSocket: (path) => connect().then(() => openSocket(path)),
    close: async () => {
      isClosed = true
      launcher.releaseAll()
    },
  }
}

function openSocket(path: string): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path)
    const onError = (error: NodeJS.ErrnoException): void =>
      reject(socketRefused('local', path, error.code ?? error.message))
    socket.once('error', onError)
    socket.once('connect', () => {
      socket.off('error', onError)
      resolve(asConnectedSocket(socket))
    })
  })
}
