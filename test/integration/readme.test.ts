import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseDocument } from 'yaml'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { PostgresServer, runReplctl, TestHosts } from '../kit/index.ts'

/** The commands of README.md's shell blocks, in order, without comments. */
async function readmeCommands(): Promise<string[]> {
  const text = await readFile(new URL('../../README.md', import.meta.url), 'utf8')
  const blocks = [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map((match) => match[1] ?? '')
  return blocks
    .join('')
    .split('\n')
    .map((line) => line.replace(/\s+#.*$/, '').trim())
    .filter((line) => line !== '')
}

describeOnHosts("README.md's commands", () => {
  let hosts: TestHosts
  let folder: string
  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: ['pg1', 'pg2', 'pg3'].map((name) => ({ name })) })
    folder = await mkdtemp(join(tmpdir(), 'replctl-readme-'))
  })
  afterAll(async () => {
    await hosts?.destroy()
    await rm(folder, { recursive: true, force: true })
  })

  it('names npm run quickstart and npm test, each run by a test of its own', async () => {
    const commands = await readmeCommands()
    expect(commands.slice(0, 2)).toEqual(['npm run quickstart', 'npm test'])
    const { scripts } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'))
    expect(scripts).toMatchObject({
      quickstart: 'node scripts/quickstart.mjs',
      test: 'node scripts/test.mjs',
    })
  })

  it('take three empty hosts to a proven cluster, and through the loss of its primary, word for word', async () => {
    const commands = (await readmeCommands()).filter((command) => command.startsWith('replctl '))
    expect(commands.map((command) => command.split(' ')[1])).toEqual([
      ...['new', 'doctor', 'init', 'add-standby', 'verify', 'status', 'rejoin', 'switchover'],
    ])
    const primary = new PostgresServer(hosts, 'pg1', { dataDir: '/var/lib/postgresql/15/shop' })
    for (const command of commands) {
      const words = command.split(' ').slice(1)
      const addresses = ['pg1', 'pg2', 'pg3'].map((name) => hosts.addressOf(name))
      const args = words.map((word) => (/^[\d.]+(,[\d.]+)+$/.test(word) ? addresses.join() : word))
      // What README.md tells in between: the primary's PostgreSQL dies, and "replctl promote" follows.
      if (words[0] === 'rejoin') {
        await primary.kill9()
        const promoted = await runReplctl(['promote'], { cwd: folder })
        expect(promoted.exitCode, promoted.stderr).toBe(0)
      }
      const result = await runReplctl(args, { cwd: folder })
      expect(result.exitCode, `${command}\n${result.stdout}\n${result.stderr}`).toBe(0)
      if (words[0] === 'new') await useTestKeys()
    }
    expect(
      await primary.sqlValue('SELECT count(*)::int FROM pg_stat_replication WHERE state = $$streaming$$'),
    ).toBe(2)
  })

  /** The one thing that an operator has already: a key, and the hosts in known_hosts. */
  async function useTestKeys(): Promise<void> {
    const path = join(folder, 'replctl.yaml')
    const inventory = parseDocument(await readFile(path, 'utf8'))
    inventory.setIn(['ssh', 'identity_file'], hosts.identityFile)
    inventory.setIn(['ssh', 'known_hosts'], hosts.knownHostsFile)
    await writeFile(path, inventory.toString())
  }
})
