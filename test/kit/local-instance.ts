import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { quoteConfigValue } from '../../src/postgres/config-file.ts'
import type { ArchiveKit } from './archive-kit.ts'

/** A PostgreSQL instance of the archive kit's user, reachable through a socket in its own directory. */
export class LocalInstance {
  readonly kit: ArchiveKit
  readonly name: string
  readonly directory: string
  readonly dataDir: string
  readonly #bin = newestBinDir()

  constructor(kit: ArchiveKit, name: string) {
    this.kit = kit
    this.name = name
    this.directory = kit.directory(name)
    this.dataDir = join(this.directory, 'data')
  }

  get walDir(): string {
    return join(this.dataDir, 'pg_wal')
  }

  async init(options: readonly string[] = []): Promise<void> {
    await this.#program('initdb', ['-D', this.dataDir, '-A', 'trust', '-N', '-U', 'postgres', ...options])
  }

  /** Copies a running instance, without its WAL: a standby or a restore that lives from the archive alone. */
  async copyOf(source: LocalInstance): Promise<void> {
    const from = ['-h', source.directory, '-U', 'postgres']
    await this.#program('pg_basebackup', ['-D', this.dataDir, '-X', 'none', '-c', 'fast', ...from])
  }

  async start(settings: Readonly<Record<string, string>> = {}, wait = true): Promise<void> {
    const all = { listen_addresses: '', unix_socket_directories: this.directory, fsync: 'off', ...settings }
    const lines = Object.entries(all).map(([name, value]) => `${name} = ${quoteConfigValue(value)}\n`)
    this.kit.write(join(this.dataDir, 'postgresql.auto.conf'), lines.join(''))
    await this.#program('pg_ctl', ['-D', this.dataDir, '-l', this.logFile, wait ? '-w' : '-W', 'start'])
  }

  get logFile(): string {
    return join(this.directory, 'log')
  }

  async stop(mode = 'fast'): Promise<void> {
    await this.kit.run(join(this.#bin, 'pg_ctl'), ['-D', this.dataDir, '-m', mode, '-w', 'stop'])
  }

  async promote(): Promise<void> {
    await this.#program('pg_ctl', ['-D', this.dataDir, '-w', 'promote'])
  }

  /** Runs SQL; resolves with what psql prints, unaligned. */
  async sql(query: string): Promise<string> {
    const place = ['-h', this.directory, '-U', 'postgres', '-d', 'postgres']
    const options = ['-X', '-A', '-t', '-q', '-v', 'ON_ERROR_STOP=1']
    return (await this.#program('psql', [...place, ...options, '-c', query])).trim()
  }

  /** Of pg_controldata, as text. */
  async systemIdentifier(): Promise<string> {
    const text = await this.#program('pg_controldata', [this.dataDir])
    return /^Database system identifier:\s+(\d+)$/m.exec(text)![1]!
  }

  async #program(name: string, args: readonly string[]): Promise<string> {
    const env = { LC_ALL: 'C' }
    const { status, stdout, stderr } = await this.kit.run(join(this.#bin, name), args, { env })
    if (status !== 0) throw new Error(`${name} ended with ${status}: ${stderr}${stdout}`)
    return stdout
  }
}

function newestBinDir(): string {
  const root = '/usr/lib/postgresql'
  const [newest] = readdirSync(root).sort((a, b) => Number(b) - Number(a))
  if (newest === undefined) throw new Error('PostgreSQL is not installed')
  return join(root, newest, 'bin')
}
