import { execFile } from 'node:child_process'
import type { LookupAddress } from 'node:dns'
import { readFile } from 'node:fs/promises'
import { isIP, type LookupFunction } from 'node:net'

export interface NameQuery {
  readonly name: string
  /** 0: both. */
  readonly family: 0 | 4 | 6
  readonly env: Readonly<Record<string, string | undefined>>
  /** Aborted: the search is killed. */
  readonly signal: AbortSignal
}

/**
 * Finds the addresses of a name in a process that can be killed. Of this process's own look-ups only two run at once, none can be
 * called off, and its end waits for them: names in a zone that is silent would hold up every other host.
 * What /etc/hosts knows needs no process. Undefined: nobody can be asked so (no `getent`, as on macOS).
 * @throws an error with code `ENONAME` where the name is not found
 */
export async function resolveName(query: NameQuery): Promise<readonly LookupAddress[] | undefined> {
  const listed = inHostsFile(await readFile('/etc/hosts', 'utf8').catch(() => ''), query)
  return listed.length > 0 ? listed : await askGetent(query)
}

/** Answers for a socket that is about to connect. */
export function answerWith(addresses: readonly LookupAddress[]): LookupFunction {
  return (_name, { all }, done) => {
    const [first] = addresses
    if (all === true) done(null, [...addresses])
    else done(null, first?.address ?? '', first?.family)
  }
}

/** The addresses that a file such as /etc/hosts gives a name. */
export function inHostsFile(
  text: string,
  { name, family }: Pick<NameQuery, 'name' | 'family'>,
): LookupAddress[] {
  const wanted = name.toLowerCase()
  const lines = text.split('\n').map((line) => line.replace(/#.*/, '').trim().split(/\s+/))
  return lines
    .filter(([, ...names]) => names.some((one) => one.toLowerCase() === wanted))
    .flatMap(([address = '']) => asAddress(address, family))
}

function asAddress(address: string, wanted: number): LookupAddress[] {
  const family = isIP(address)
  return family === 0 || (wanted !== 0 && family !== wanted) ? [] : [{ address, family }]
}

const databases = { 0: 'ahosts', 4: 'ahostsv4', 6: 'ahostsv6' } as const

function askGetent({ name, family, env, signal }: NameQuery): Promise<readonly LookupAddress[] | undefined> {
  const options = { env: { ...env, LC_ALL: 'C' }, signal, killSignal: 'SIGKILL' } as const
  return new Promise((resolve, reject) => {
    execFile('getent', [databases[family], name], options, (error, stdout) => {
      if (error?.name === 'AbortError') return reject(error)
      // 2: not found. Anything else: no such program, or one that knows no `ahosts`.
      if (error?.code === 2)
        return reject(Object.assign(new Error(`${name} is not found`), { code: 'ENONAME' }))
      const lines = stdout.split('\n').map((line) => line.split(/\s+/))
      const found = lines.flatMap(([address = '', type]) =>
        type === 'STREAM' ? asAddress(address, family) : [],
      )
      resolve(error !== null || found.length === 0 ? undefined : found)
    })
  })
}
