/**
 * A client as an application has it, in a process of its own: one session of libpq (psql) that knows all hosts and asks for
 * target_session_attrs=read-write, and writes every few ms; where its session ends, the next one begins. Told `reset`, it
 * forgets; told `report`, it sends the longest time between two confirmed writes since then, in ms.
 */
import { spawn } from 'node:child_process'
import { setTimeout as pause } from 'node:timers/promises'

const hosts = process.argv.slice(2)
const conninfo = `host=${hosts.join(',')} user=bench dbname=postgres target_session_attrs=read-write connect_timeout=2`
const insert = 'INSERT INTO writes VALUES (now());\n\\echo written\n'
let longest = 0
let last = performance.now()
let written = 0
let asked = null
let session

process.on('message', (message) => {
  if (message === 'reset') {
    longest = 0
    written = 0
    process.send('ready')
  }
  // Only after a write: an outage that still lasts is not over.
  if (message === 'report') asked = written
})
process.on('disconnect', () => {
  session?.kill()
  process.exit()
})

/** Writes until its session ends. */
function write() {
  return new Promise((resolve) => {
    session = spawn(
      '/usr/lib/postgresql/15/bin/psql',
      ['-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', '-', conninfo],
      {
        stdio: ['pipe', 'pipe', 'ignore'],
      },
    )
    session.stdin.on('error', () => undefined)
    session.stdout.on('data', () => {
      confirmed()
      setTimeout(() => session.stdin.write(insert), 2)
    })
    session.on('close', resolve)
    session.stdin.write(insert)
  })
}

function confirmed() {
  const now = performance.now()
  longest = Math.max(longest, now - last)
  last = now
  written += 1
  if (asked !== null && written > asked + 3) {
    process.send(longest)
    asked = null
  }
}

for (;;) {
  await write()
  await pause(2)
}
