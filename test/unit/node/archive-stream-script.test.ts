import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { renderArchiveStream } from '../../../src/postgres/archive.ts'
import { awaitCondition } from '../../kit/await-condition.ts'

// The script itself under this machine's sh; psql and pg_receivewal are stand-ins that do as a file for each host tells them.

const identifier = '7300000000000000001'
const template = readFileSync(
  new URL('../../../templates/archive/archive-stream.sh', import.meta.url),
  'utf8',
)

/** Newer than any that may be installed here: the newest one is taken. */
const psql = `#!/bin/sh
for conninfo; do :; done
case $1 in --version) echo 'psql (PostgreSQL) 99.0'; exit ;; esac
host=\${conninfo#*host=}
at=${'$FAKE'}/\${host%% *}
[ ! -e "$at.hangs" ] || exec sleep 600
if grep -q SHOW stream.ask; then echo 16MB; exit; fi
cat "$at.answer" 2>/dev/null && exit
echo "$at does not answer" >&2
exit 2
`
const receivewal = `#!/bin/sh
[ "$1" != --version ] || { echo 'pg_receivewal (PostgreSQL) 99.0'; exit; }
case "$*" in *--create-slot*) exit ;; esac
case "$*" in *--drop-slot*) echo "$*" >>"$FAKE/dropped"; exit ;; esac
host=\${*#*host=}
at=${'$FAKE'}/\${host%% *}
[ ! -e "$at.deaf" ] || trap '' TERM
echo "$*" >>"$FAKE/received"
[ ! -e "$at.fails" ] || { cat "$at.fails" >&2; exit 1; }
# Whoever forgets to end it takes its folder away.
while [ -e "$0" ]; do sleep 0.1; done
`

let dir: string
let state: string
let wal: string
let script: ChildProcess | undefined

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'replctl-stream-'))
  state = join(dir, 'state')
  wal = join(dir, 'wal')
  for (const one of [state, wal, join(dir, 'bin')]) mkdirSync(one)
  program(join(dir, 'bin', 'psql'), psql)
  program(join(dir, 'bin', 'pg_receivewal'), receivewal)
})
afterEach(async () => {
  await end('SIGKILL')
  rmSync(dir, { recursive: true, force: true, maxRetries: 5 })
})

function program(path: string, text: string) {
  writeFileSync(path, text)
  chmodSync(path, 0o755)
}
const tell = (name: string, text = '') => writeFileSync(join(dir, name), text)
const answer = (host: string, timeline: number, position = '0/3000148', owner = identifier) =>
  tell(`${host}.answer`, `${owner} ${timeline} ${position} \n`)
const nodes = (...hosts: readonly string[]) =>
  writeFileSync(join(state, 'archive_nodes'), hosts.map((host) => `host=${host} port=5432\n`).join(''))
const read = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : '')
const received = () => read(join(dir, 'received')).trim().split('\n')
const log = () => read(join(state, 'stream.log'))
const patience = { timeoutMs: 30_000 }
const awaitReceived = (text: string, times = 1) =>
  awaitCondition(
    `pg_receivewal runs with ${text}`,
    async () => received().filter((line) => line.includes(text)).length >= times,
    patience,
  )
const awaitSaid = (text: string) =>
  awaitCondition(`it says ${text}`, async () => log().includes(text), patience)

function start(...args: readonly string[]) {
  const path = join(state, 'archive-stream')
  const values = { cluster: 'shop', walDirectory: wal, conninfo: 'user=r', slot: 'shop_archive' }
  program(path, renderArchiveStream(template, { ...values, systemIdentifier: identifier }))
  script = spawn(path, args, {
    env: { ...process.env, FAKE: dir, PATH: `${join(dir, 'bin')}:/usr/bin:/bin` },
    stdio: 'ignore',
    detached: true,
  })
}

/** SIGKILL: with all that it started. */
async function end(signal: 'SIGTERM' | 'SIGKILL') {
  const child = script
  script = undefined
  if (child?.pid === undefined) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  if (signal === 'SIGKILL') process.kill(-child.pid, signal)
  else child.kill(signal)
  await ended
}

test('of two nodes that accept writes the one on the newer timeline is received from, whichever stands first', async () => {
  answer('old', 1)
  answer('new', 2)
  tell('gone.hangs')
  nodes('gone', 'old', 'new')
  start()
  await awaitReceived('host=new')
  expect(received().join()).not.toContain('host=old')
  expect(received()[0]).toContain('tcp_user_timeout=')
})

test('the slot that a standby keeps for the archive is dropped by what a server of any version tells a walsender', async () => {
  answer('new', 2)
  nodes('old', 'new')
  start()
  await awaitReceived('host=new')
  const dropped = read(join(dir, 'dropped')).trim().split('\n')
  expect(dropped).toEqual([expect.stringContaining('host=old port=5432')])
  // target_session_attrs=standby is asked by a query before 14, which a walsender refuses.
  expect(dropped[0]).toContain(
    "target_session_attrs=read-only options='-c default_transaction_read_only=off' --slot=shop_archive --drop-slot",
  )
})

test('a node of another cluster, or on an older timeline than the archive, hides no other', async () => {
  answer('foreign', 9, '0/3000148', '42')
  answer('old', 1)
  nodes('foreign', 'old')
  writeFileSync(join(wal, '00000002.history'), '1\t0/3000000\tx\n')
  start()
  await awaitSaid('host=old port=5432 is on timeline 1')
  answer('new', 2)
  nodes('foreign', 'old', 'new')
  await awaitReceived('host=new')
})

test('who belongs to the cluster is read anew: a node that was removed is not looked for', async () => {
  answer('removed', 7)
  answer('member', 1)
  nodes('removed', 'member')
  start()
  await awaitReceived('host=removed')
  nodes('member')
  script?.kill('SIGUSR1')
  await awaitReceived('host=member')
})

test('a pg_receivewal that takes leave of a dead server for minutes does not hold it up', async () => {
  answer('dead', 1)
  tell('dead.deaf')
  nodes('dead')
  start()
  await awaitReceived('host=dead')
  answer('new', 2)
  nodes('new')
  script?.kill('SIGUSR1')
  await awaitReceived('host=new')
  tell('new.deaf')
  script?.kill('SIGUSR1')
  await awaitReceived('host=new', 2)
  await end('SIGTERM')
  expect(log()).toContain('stopped')
})

test.each([
  'ERROR:  requested WAL segment 000000010000000000000002 has already been removed',
  'ERROR:  can no longer access replication slot "shop_archive"',
])(
  'WAL that is gone is told, and gone on behind it when asked, also where nothing is there yet: %s',
  async (said) => {
    answer('pg1', 1, '0/5000148')
    tell('pg1.fails', said)
    nodes('pg1')
    start()
    await awaitSaid('the primary has removed WAL that the archive lacks')
    await awaitCondition(
      'the gap is noted',
      async () => read(join(state, 'stream.gap')).includes(said),
      patience,
    )
    const ended = new Promise((resolve) => script?.once('exit', resolve))
    script?.kill('SIGTERM')
    await ended
    start('--leap')
    await awaitSaid('WAL between the beginning and 000000010000000000000005 is missing for ever')
    expect(existsSync(join(wal, '000000010000000000000005.partial'))).toBe(true)
    expect(existsSync(join(state, 'stream.gap'))).toBe(false)
  },
)
