import type { SshHop } from '../../../src/transport/ssh-route.ts'

/** A host to log into, as a test says no more about it. */
export const someHop: SshHop = {
  host: 'pg1',
  address: '10.0.0.11',
  port: 2222,
  user: 'postgres',
  identityFiles: [],
  identitiesOnly: false,
  agent: undefined,
  hostKeyAlias: undefined,
  knownHostsFiles: [],
  learnInto: undefined,
  hashKnownHosts: false,
  revokedKeysFile: undefined,
  certificateFiles: [],
  addressFamily: 0,
  silenceMs: 12_000,
  proxyCommand: undefined,
}
