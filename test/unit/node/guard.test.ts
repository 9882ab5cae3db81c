import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Secret, shellScript } from '../../../src/command.ts'
import { readTextFile, writeTextFile } from '../../../src/node/files.ts'
import { type Guard, type GuardAnswer, type Holder, tryGuard } from '../../../src/node/guard.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { readHostFacts } from '../../../src/node/survey.ts'
import type { RunningCommand, Transport } from '../../../src/transport/transport.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

// The script itself, under this machine's sh: what holds the lock is the kernel, so no fake can stand in for it.

const holder: Holder = {
  user: 'o"brien',
  host: 'control1',
  pid: 100,
  command: "replctl promote 'pg 2' \\n $(id) %s",
  since: '2026-03-01T12:00:00.000Z',
}

let home: string
let node: Node
let running: RunningCommand[]

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-guard-'))
  running = []
  useShell(['/bin/sh'])
})

function useShell(path: readonly string[], searchPath?: string): void {
  const shell = createShellTransport(home, path, searchPath)
  const transport: Transport = {
    ...shell,
    start: async (command) => {
      const started = await shell.start(command)
      running.push(started)
      return started
    },
  }
  node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', transport)
}
afterEach(async () => {
  for (const one of running) one.endInput()
  await Promise.all(running.map((one) => one.finished))
  await rm(home, { recursive: true, force: true })
})

const stateFile = (name: string) => join(home, '.replctl/shop', name)

async function lock(): Promise<Guard> {
  const answer = await tryGuard(node, holder)
  if (answer.is !== 'locked') throw new Error('expected the lock')
  return answer.guard
}

/** The kernel gives the lock back a moment after its holder's end. */
async function lockSoon(): Promise<GuardAnswer> {
  const deadline = Date.now() + 3_000
  for (;;) {
    const answer = await tryGuard(node, holder)
    if (answer.is === 'locked' || Date.now() > deadline) return answer
  }
}

test('a second holder sees who the first is, word for word, and how fresh its sign of life', async () => {
  const guard = await lock()
  expect(guard).toMatchObject({ node: 'pg1', isHeld: true, foundJournal: null })
  const second = await tryGuard(node, { ...holder, pid: 200 })
  expect(second).toEqual({ is: 'held', node: 'pg1', holder, beatAgeSeconds: expect.any(Number) })
  expect(second.is === 'held' && second.beatAgeSeconds).toBeLessThan(5)
  await guard.beat()
  await guard.ping()
  await guard.release()
  expect(guard.isHeld).toBe(false)
  await expect(guard.ping()).rejects.toMatchObject({ code: 'lock-lost', node: 'pg1' })
})

test('releasing frees it, and leaves neither holder nor beat behind', async () => {
  await (await lock()).release()
  expect((await readdir(join(home, '.replctl/shop'))).toSorted()).toEqual(['lock'])
  expect((await lockSoon()).is).toBe('locked')
})

test('it dies with its holder: the end of its input is enough', async () => {
  const guard = await lock()
  await guard.writeJournal('{"version":1}')
  running[0]!.endInput()
  await running[0]!.finished
  const next = await lockSoon()
  expect(next.is === 'locked' && next.guard.foundJournal).toBe('{"version":1}')
  await expect(guard.beat()).rejects.toMatchObject({ code: 'lock-lost', node: 'pg1' })
})

test('the journal is kept letter by letter, is found by the next holder, and goes when it is cleared', async () => {
  const journal = JSON.stringify({
    version: 1,
    command: 'promote',
    begun: ['pg1: it\'s "a\\b" %s $(id) ☃  x\n'],
  })
  const guard = await lock()
  await guard.writeJournal(journal)
  expect(await readFile(stateFile('journal'), 'utf8')).toBe(`${journal}\n`)
  await guard.release()
  const next = await lockSoon()
  if (next.is !== 'locked') throw new Error('expected the lock')
  expect(next.guard.foundJournal).toBe(journal)
  await next.guard.clearJournal()
  await next.guard.clearJournal()
  expect(existsSync(stateFile('journal'))).toBe(false)
})

test('with the lock comes what the survey wants to know of the host, and questions wait for it', async () => {
  const answer = await tryGuard(node, holder, 'brief')
  if (answer.is !== 'locked') throw new Error('expected the lock')
  await Promise.all([answer.guard.beat(), answer.guard.writeJournal('one')])
  expect(await readFile(stateFile('journal'), 'utf8')).toBe('one\n')
  expect(readHostFacts(node, (await answer.facts) ?? '', 0)).toMatchObject({ home, unreachable: null })
})

test('whoever holds the lock says anew what there is on the host, in its turn', async () => {
  const guard = await lock()
  const journal = guard.writeJournal('one')
  const looks = [guard.look(), guard.look()]
  await guard.beat()
  await journal
  for (const look of looks) {
    expect(readHostFacts(node, await look, 0)).toMatchObject({
      home,
      journal: 'one',
      holder: JSON.stringify(holder),
    })
  }
  await guard.writeJournal('two')
  expect(readHostFacts(node, await guard.look(), 0).journal).toBe('two')
})

test('which operations are over is kept, the newest thirty', async () => {
  const guard = await lock()
  await guard.writeJournal('one')
  await guard.clearJournal(['2026-03-01T12:00:00.000Z dba@control', 'other "quoted" $(id)'])
  expect(existsSync(stateFile('journal'))).toBe(false)
  expect(await readFile(stateFile('ended'), 'utf8')).toBe(
    '2026-03-01T12:00:00.000Z dba@control\nother "quoted" $(id)\n',
  )
  await guard.clearJournal(Array.from({ length: 40 }, (_, index) => `number ${index}`))
  const kept = (await readFile(stateFile('ended'), 'utf8')).trim().split('\n')
  expect([kept.length, kept[0], kept[29]]).toEqual([30, 'number 10', 'number 39'])
  // Noted alone, the journal that lies there stays.
  await guard.writeJournal('two')
  await guard.noteEnded(['number 40'])
  expect(await readFile(stateFile('journal'), 'utf8')).toBe('two\n')
  expect((await readFile(stateFile('ended'), 'utf8')).trim().split('\n').at(-1)).toBe('number 40')
})

describe('a journal that lies ready', () => {
  const read = (name: string) => readFile(stateFile(name), 'utf8')

  test('counts only once it is written, which takes a rename', async () => {
    const guard = await lock()
    await guard.writeJournal('one')
    await guard.prepareJournal('two "quoted" $(id) \\n')
    expect(await read('journal')).toBe('one\n')
    const { ino } = await stat(stateFile('journal.next'))
    expect(await guard.writeJournal('two "quoted" $(id) \\n')).toBe(true)
    expect(await read('journal')).toBe('two "quoted" $(id) \\n\n')
    expect((await stat(stateFile('journal'))).ino).toBe(ino)
  })

  test('is not taken for another one, nor twice', async () => {
    const guard = await lock()
    await guard.prepareJournal('two')
    expect(await guard.writeJournal('one')).toBe(true)
    expect(await read('journal')).toBe('one\n')
    expect(await guard.writeJournal('two')).toBe(true)
    expect(await read('journal')).toBe('two\n')
    await guard.writeJournal('three')
    await guard.writeJournal('two')
    expect(await read('journal')).toBe('two\n')
  })

  test('that went away meanwhile is written whole', async () => {
    const guard = await lock()
    await guard.prepareJournal('two')
    await rm(stateFile('journal.next'))
    expect(await guard.writeJournal('two')).toBe(true)
    expect(await read('journal')).toBe('two\n')
  })

  test('and was not needed goes with the operation', async () => {
    const guard = await lock()
    for (const end of [
      () => guard.clearJournal(['one']),
      () => guard.clearJournal(),
      () => guard.noteEnded(['one']),
    ]) {
      await guard.prepareJournal('two')
      await end()
      expect(existsSync(stateFile('journal.next'))).toBe(false)
    }
  })
})

test('where nothing can be written the lock is held all the same, and only the journal is missing', async () => {
  await mkdir(join(home, '.replctl/shop/journal.new'), { recursive: true })
  await mkdir(stateFile('holder'))
  await mkdir(stateFile('beat'))
  const guard = await lock()
  await guard.beat()
  expect(await guard.writeJournal('one')).toBe(false)
  await guard.beat()
  expect(await tryGuard(node, holder)).toMatchObject({ is: 'held', holder: null })
})

test('what is asked at once is answered in order', async () => {
  const guard = await lock()
  await Promise.all([guard.beat(), guard.writeJournal('one'), guard.beat(), guard.writeJournal('two')])
  expect(await readFile(stateFile('journal'), 'utf8')).toBe('two\n')
})

test('a holder’s file that was cut off is no obstacle', async () => {
  await lock()
  await writeFile(stateFile('holder'), '4711\n{"user":"db')
  expect(await tryGuard(node, holder)).toMatchObject({ is: 'held', holder: null })
})

describe('without flock', () => {
  const tools = 'cat date kill ln ls mkdir mv readlink rm sed sh sleep stat sync tail touch'.split(' ')

  beforeEach(async () => {
    await mkdir(join(home, 'bin'))
    await Promise.all(tools.map((tool) => symlink(`/bin/${tool}`, join(home, 'bin', tool))))
    await mkdir(join(home, '.replctl/shop'), { recursive: true })
    useShell(['/bin/sh'], join(home, 'bin'))
  })

  test('one of many that come at once has the lock, and the others see who', async () => {
    for (let round = 0; round < 5; round += 1) {
      // A dead holder was left by the round before: each finds that first.
      if (round > 0) await symlink('999999', stateFile('lock.pid'))
      const answers = await Promise.all(Array.from({ length: 8 }, () => tryGuard(node, holder)))
      const locked = answers.filter((answer) => answer.is === 'locked')
      expect([locked.length, answers.length - locked.length]).toEqual([1, 7])
      await (locked[0] as { guard: Guard }).guard.release()
      expect((await readdir(join(home, '.replctl/shop'))).toSorted()).toEqual([])
    }
  })

  test('who died while it removed the lock of a dead one is succeeded to', async () => {
    await symlink('999999', stateFile('lock.pid'))
    await symlink('999998', stateFile('lock.dead.999999'))
    await symlink('999997', stateFile('lock.dead.999999.999998'))
    const answers = await Promise.all(Array.from({ length: 4 }, () => tryGuard(node, holder)))
    const locked = answers.filter((answer) => answer.is === 'locked')
    expect([locked.length, answers.length - locked.length]).toEqual([1, 3])
    await (locked[0] as { guard: Guard }).guard.release()
    expect((await readdir(join(home, '.replctl/shop'))).toSorted()).toEqual([])
  })

  test('a lock whose holder has not yet said who it is, is held', async () => {
    await symlink(String(process.pid), stateFile('lock.pid'))
    expect(await tryGuard(node, holder)).toMatchObject({ is: 'held', holder: null })
  })

  test('where it cannot be made that is an error, and ends', async () => {
    await mkdir(stateFile('lock.pid'))
    await writeFile(join(stateFile('lock.pid'), 'x'), '')
    await rm(join(home, 'bin/ln'))
    await expect(tryGuard(node, holder)).rejects.toMatchObject({
      detail: expect.stringContaining('cannot make'),
    })
  })
})

const shells: [string, string[]][] = [
  ['sh', ['/bin/sh']],
  ['bash', ['/bin/bash', '--posix']],
  ['busybox', ['/bin/busybox', 'sh']],
]

test.each(shells.filter(([, [path]]) => existsSync(path!)))(
  'a shell (%s) that holds the lock runs a quick command: arguments, input, output, both streams and status, letter by letter',
  async (_, shell) => {
    useShell(shell)
    const guard = await lock()
    const odd = ' it\'s "a\\b" %s $(id) `id` ☃ \t x '
    const text = `${odd}\n\n\\n --\nno newline at the end`
    const echo = shellScript(
      'echo',
      'printf "%s" "$2"; cat; printf "%s\\n" "$1" >&2; exit 66',
      [odd, 'first\n'],
      {
        stdin: new Secret(text),
        isQuick: true,
      },
    )
    const [result, journal, next] = await Promise.all([
      guard.run(echo),
      guard.writeJournal('one'),
      guard.run(shellScript('say', 'echo "$#"; echo done', [], { isQuick: true })),
    ])
    expect(result).toEqual({ status: 66, signal: null, stdout: `first\n${text}`, stderr: odd })
    expect(journal).toBe(true)
    expect(next).toEqual({ status: 0, signal: null, stdout: '0\ndone\n', stderr: '' })
  },
)

test('a quick command can neither end the shell nor hold the lock after it', async () => {
  const guard = await lock()
  const leaves =
    'trap "echo over" EXIT; ( sleep 600 ) </dev/null >/dev/null 2>&1 & echo $!; exec 3>&1; exit 7'
  const { status, stdout } = await guard.run(shellScript('leave', leaves, [], { isQuick: true }))
  const pid = Number(stdout.split('\n')[0])
  try {
    expect([status, stdout]).toEqual([7, `${pid}\nover\n`])
    const unread = shellScript('do not read', 'exit 3', [], { stdin: 'x\n'.repeat(20_000), isQuick: true })
    expect(await guard.run(unread)).toMatchObject({ status: 3 })
    await guard.beat()
    await guard.release()
    expect((await lockSoon()).is).toBe('locked')
  } finally {
    process.kill(pid)
  }
})

test('what is no UTF-8 in a file of the operator’s is written back byte for byte, with the lock or without', async () => {
  const path = join(home, 'postgresql.conf')
  const bytes = Buffer.concat([
    Buffer.from('# gr\xf6\xdfe, \xa0\n', 'latin1'),
    Buffer.from('port = 5432 # Größe ☃ 😀 \ufffd\n'),
    Buffer.from([0xc3, 0x28, 0xe2, 0x82, 0xff, 0xed, 0xa0, 0x80, 0xf4, 0x90, 0x80, 0x80, 0x0a, 0xc3]),
  ])
  await writeFile(path, bytes)
  const guard = await lock()
  for (const shell of [null, guard]) {
    node.shell = shell
    const text = await readTextFile(node, path)
    expect(text).toContain('port = 5432 # Größe ☃ 😀 \ufffd\n')
    await writeTextFile(node, path, `${text}\nwal_level = replica\n`)
    expect(
      (await readFile(path)).equals(Buffer.concat([bytes, Buffer.from('\nwal_level = replica\n')])),
    ).toBe(true)
    await writeFile(path, bytes)
  }
})

test('files are read and replaced through it, in order with everything else', async () => {
  const guard = await lock()
  node.shell = guard
  const path = join(home, 'some file')
  expect(await readTextFile(node, path)).toBeNull()
  const text = `# ${'it\'s "a\\b" %s $(id) ☃ '.repeat(900)}\n\nlast`
  await writeTextFile(node, path, text, { mode: '0640' })
  expect(await readFile(path, 'utf8')).toBe(text)
  expect(await readTextFile(node, path)).toBe(text)
  await writeTextFile(node, path, '\n')
  expect([await readTextFile(node, path), (await stat(path)).mode & 0o777]).toEqual(['\n', 0o640])
  expect(running).toHaveLength(1)
  await mkdir(join(home, 'folder'))
  await expect(writeTextFile(node, join(home, 'folder'), 'x')).rejects.toMatchObject({
    code: 'remote-command-failed',
  })
  // Without the lock nothing is written through it; what only reads finds another way.
  await guard.release()
  await expect(writeTextFile(node, path, 'lost')).rejects.toMatchObject({ code: 'lock-lost', node: 'pg1' })
  expect(await readTextFile(node, path)).toBe('\n')
})
