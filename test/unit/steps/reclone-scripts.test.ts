import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { deleteAsideScript, moveAsideScript, putAsideBackScript } from '../../../src/steps/reclone-scripts.ts'

let home: string
let data: string
let wal: string

beforeEach(async () => {
  home = realpathSync(await mkdtemp(join(tmpdir(), 'replctl-aside-')))
  data = join(home, "pg's data")
  wal = join(home, 'wal')
  await mkdir(data)
  await mkdir(wal)
  await writeFile(join(data, 'PG_VERSION'), '15\n')
  await writeFile(join(wal, '000000010000000000000001'), 'x')
})
afterEach(() => rm(home, { recursive: true, force: true }))

const run = (script: string, ...args: string[]) => execFileSync('sh', ['-c', script, 'sh', ...args])

test('with a link pg_wal, its folder goes along and the same link waits for the new clone', async () => {
  await symlink(wal, join(data, 'pg_wal'))
  run(moveAsideScript, data)
  expect(readdirSync(data)).toEqual(['pg_wal'])
  expect([readlinkSync(join(data, 'pg_wal')), readdirSync(wal)]).toEqual([wal, []])
  expect(readdirSync(join(`${data}.replctl-old`, 'pg_wal'))).toEqual(['000000010000000000000001'])
  run(putAsideBackScript, data)
  expect([readlinkSync(join(data, 'pg_wal')), readdirSync(wal)]).toEqual([wal, ['000000010000000000000001']])
  expect(readFileSync(join(data, 'PG_VERSION'), 'utf8')).toBe('15\n')
  expect(readdirSync(home).toSorted()).toEqual(["pg's data", 'wal'])
})

test('a run that was killed between the two renames is gone on with', async () => {
  await mkdir(`${wal}.replctl-old`)
  await writeFile(join(`${wal}.replctl-old`, 'old'), 'x')
  await rm(wal, { recursive: true })
  await symlink(`${wal}.replctl-old`, join(data, 'pg_wal'))
  run(moveAsideScript, data)
  expect([readlinkSync(join(data, 'pg_wal')), readdirSync(wal)]).toEqual([wal, []])
  expect(readdirSync(join(`${data}.replctl-old`, 'pg_wal'))).toEqual(['old'])
})

test('when the new clone streams, the old directory goes with its WAL, and the new one’s stays', async () => {
  await symlink(wal, join(data, 'pg_wal'))
  run(moveAsideScript, data)
  await writeFile(join(wal, 'new'), 'x')
  run(deleteAsideScript, data)
  expect(readdirSync(home).toSorted()).toEqual(["pg's data", 'wal'])
  expect(readdirSync(wal)).toEqual(['new'])
})

test('what runs again by now is not moved', async () => {
  const server = spawn('sleep', ['60'], { cwd: data })
  await writeFile(join(data, 'postmaster.pid'), `${server.pid}\n${data}\n`)
  expect(() => run(moveAsideScript, data)).toThrow(expect.objectContaining({ status: 92 }))
  expect(readdirSync(data).toSorted()).toEqual(['PG_VERSION', 'postmaster.pid'])
  server.kill('SIGKILL')
  await new Promise((resolve) => server.once('exit', resolve))
  run(moveAsideScript, data)
  expect(readdirSync(home).toSorted()).toEqual(["pg's data.replctl-old", 'wal'])
})

test('a mount point is left as it is, and so is a link to one', async () => {
  const link = join(home, 'link')
  await symlink('/proc', link)
  for (const place of ['/proc', link]) {
    expect(() => run(moveAsideScript, place)).toThrow(expect.objectContaining({ status: 65 }))
  }
  expect([readlinkSync(link), existsSync(`${link}.replctl-old`)]).toEqual(['/proc', false])
})

test('a data directory that is a link stays one: what it leads to is moved on its own disk, put back, or deleted', async () => {
  const link = join(home, 'link')
  await symlink(data, link)
  await mkdir(join(data, 'pg_wal'))
  run(moveAsideScript, link)
  expect([readlinkSync(link), readdirSync(link)]).toEqual([data, []])
  expect(readFileSync(join(`${data}.replctl-old`, 'PG_VERSION'), 'utf8')).toBe('15\n')
  run(putAsideBackScript, link)
  expect([readlinkSync(link), readFileSync(join(data, 'PG_VERSION'), 'utf8')]).toEqual([data, '15\n'])
  run(moveAsideScript, link)
  await writeFile(join(link, 'PG_VERSION'), '16\n')
  run(putAsideBackScript, link)
  run(deleteAsideScript, link)
  expect(readFileSync(join(data, 'PG_VERSION'), 'utf8')).toBe('16\n')
  expect(readdirSync(home).toSorted()).toEqual(['link', "pg's data", 'wal'])
})

test('both may be links: the data directory, and pg_wal in it', async () => {
  const link = join(home, 'link')
  await symlink(data, link)
  await symlink(wal, join(data, 'pg_wal'))
  run(moveAsideScript, link)
  expect([readdirSync(data), readlinkSync(join(link, 'pg_wal')), readdirSync(wal)]).toEqual([
    ['pg_wal'],
    wal,
    [],
  ])
  run(putAsideBackScript, link)
  expect(readdirSync(join(link, 'pg_wal'))).toEqual(['000000010000000000000001'])
  run(moveAsideScript, link)
  run(deleteAsideScript, link)
  expect(readdirSync(home).toSorted()).toEqual(['link', "pg's data", 'wal'])
})

test('without a link it is one rename, there and back, and a new clone that stands there is not touched', async () => {
  await mkdir(join(data, 'pg_wal'))
  run(moveAsideScript, data)
  expect([existsSync(data), readdirSync(wal)]).toEqual([false, ['000000010000000000000001']])
  await mkdir(data)
  await writeFile(join(data, 'PG_VERSION'), '16\n')
  run(putAsideBackScript, data)
  expect(readFileSync(join(data, 'PG_VERSION'), 'utf8')).toBe('16\n')
  await rm(data, { recursive: true })
  run(putAsideBackScript, data)
  expect(readFileSync(join(data, 'PG_VERSION'), 'utf8')).toBe('15\n')
})
