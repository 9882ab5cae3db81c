import { readFile } from 'node:fs/promises'
import { runChecked } from './run-process.ts'

/** Makes a key pair without a passphrase (`path` and `path.pub`) and returns the public line. */
export async function makeKeyPair(path: string, type: 'ed25519' | 'ecdsa', comment: string): Promise<string> {
  await runChecked('ssh-keygen', ['-q', '-t', type, '-N', '', '-C', comment, '-f', path])
  return (await readFile(`${path}.pub`, 'utf8')).trim()
}

/** One known_hosts line for each public key. A port other than 22 is part of the name, in OpenSSH's own form. */
export function knownHostsLines(address: string, port: number, publicKeys: readonly string[]): string {
  const name = port === 22 ? address : `[${address}]:${port}`
  return publicKeys.map((key) => `${name} ${key.split(' ').slice(0, 2).join(' ')}\n`).join('')
}

/** Options that make the OpenSSH client ignore everything of the user who runs the tests. */
export function sshArguments(access: {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly identityFile: string
  readonly knownHostsFile: string
}): string[] {
  const options = {
    BatchMode: 'yes',
    IdentitiesOnly: 'yes',
    UserKnownHostsFile: access.knownHostsFile,
    GlobalKnownHostsFile: '/dev/null',
    StrictHostKeyChecking: 'yes',
    ConnectTimeout: '5',
  }
  return [
    ...['-F', '/dev/null', '-i', access.identityFile, '-p', String(access.port)],
    ...Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]),
    `${access.user}@${access.host}`,
  ]
}
