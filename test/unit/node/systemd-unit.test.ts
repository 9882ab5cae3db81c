import { execFileSync, spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { systemdUnitScript } from '../../../src/node/systemd-unit.ts'

let root: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "replctl-unit's "))
})
afterEach(() => rm(root, { recursive: true }))

async function unit(path: string, ...lines: string[]): Promise<void> {
  const file = join(root, path)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, ['[Service]', ...lines, ''].join('\n'))
}
const find = (data: string, guess: string) =>
  spawnSync('sh', ['-c', `root=$3\n${systemdUnitScript}unit_of "$1" "$2"`, 'sh', data, guess, root], {
    encoding: 'utf8',
  })

test('the unit that names the data directory is the one, whatever it is called', async () => {
  await unit('usr/lib/systemd/system/postgresql-15.service', 'Environment=PGDATA=/var/lib/pgsql/15/data/')
  await unit('etc/systemd/system/postgresql-shop.service', 'Environment="PGDATA=/srv/my shop"')
  expect(find('/var/lib/pgsql/15/data', 'postgresql-15').stdout).toBe('postgresql-15\n')
  expect(find('/srv/my shop', 'postgresql-15').stdout).toBe('postgresql-shop\n')
  expect(find('/srv/my shop', '').stdout).toBe('postgresql-shop\n')
})

test('a drop-in counts as its unit does', async () => {
  await unit('usr/lib/systemd/system/postgresql-15.service', 'Environment=PGDATA=/var/lib/pgsql/15/data/')
  await unit('etc/systemd/system/postgresql-15.service.d/place.conf', 'Environment=PGDATA=/srv/shop')
  expect(find('/srv/shop', 'postgresql-15').stdout).toBe('postgresql-15\n')
})

test('a unit of the usual name that serves another directory is nobody’s to stop', async () => {
  await unit('usr/lib/systemd/system/postgresql-15.service', 'Environment=PGDATA=/var/lib/pgsql/15/data/')
  const found = find('/srv/shop', 'postgresql-15')
  expect([found.status, found.stdout]).toEqual([1, ''])
  expect(found.stderr).toContain('the unit postgresql-15 serves /var/lib/pgsql/15/data, not /srv/shop')
})

test('one that does not say what it serves is taken at its name, where a name was expected', async () => {
  await unit('usr/lib/systemd/system/postgresql-15.service', 'EnvironmentFile=/etc/sysconfig/pgsql')
  expect(find('/srv/shop', 'postgresql-15').stdout).toBe('postgresql-15\n')
  expect(find('/srv/shop', '').status).toBe(1)
  expect(execFileSync('sh', ['-n', '-c', systemdUnitScript]).toString()).toBe('')
})
