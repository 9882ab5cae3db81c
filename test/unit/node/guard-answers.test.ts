import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { shellScript } from '../../../src/command.ts'
import { readTextFile, writeTextFile } from '../../../src/node/files.ts'
import { type Guard, tryGuard } from '../../../src/node/guard.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import type { ScriptedProcess } from '../../../src/transport/scripted-process.ts'
import { inventoryOf } from '../some-cluster.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const holder = { user: 'dba', host: 'control1', pid: 1, command: 'replctl promote', since: '2026-03-01' }

/** A guard whose other side answers only what it is told to; `asked` are the lines that came to it. */
async function scripted(): Promise<{
  guard: Guard
  node: Node
  shell: ScriptedProcess
  asked: string[]
  isKilled: () => boolean
}> {
  let shell: ScriptedProcess | undefined
  let isKilled = false
  const asked: string[] = []
  const transport = createRecordingTransport()
    .answerStart('hold the cluster lock', (process) => {
      shell = process
      process.onLine((line) => asked.push(line))
      process.onKill(() => {
        isKilled = true
      })
      process.print('locked \n')
    })
    .answer(/^read /, 'from the disk\n')
  const node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', transport)
  const answer = await tryGuard(node, holder)
  if (answer.is !== 'locked') throw new Error('expected the lock')
  node.shell = answer.guard
  return { guard: answer.guard, node, shell: shell!, asked, isKilled: () => isKilled }
}

describe('an answer that comes too late is never taken for another one', () => {
  const questions: [string, (guard: Guard) => Promise<unknown>, string][] = [
    ['a beat', (guard) => guard.beat(), 'beat'],
    ['a ping', (guard) => guard.ping(), 'pong'],
    ['a journal', (guard) => guard.writeJournal('one'), 'ok'],
    ['a journal that is cleared', (guard) => guard.clearJournal(), 'ok'],
  ]
  test.each(questions)('of %s: the lock counts as lost from then on', async (_, ask, late) => {
    const { guard, node, shell, asked, isKilled } = await scripted()
    const asking = expect(ask(guard)).rejects.toMatchObject({ code: 'lock-lost', node: 'pg1' })
    await vi.advanceTimersByTimeAsync(15_000)
    await asking
    expect([guard.isHeld, isKilled()]).toEqual([false, true])
    shell.print(`${late}\n`)
    const before = asked.length
    await expect(guard.beat()).rejects.toMatchObject({ code: 'lock-lost' })
    await expect(writeTextFile(node, '/etc/x', 'lost')).rejects.toMatchObject({ code: 'lock-lost' })
    // What only reads goes another way, and has nothing in front of it.
    expect(await readTextFile(node, '/etc/x')).toBe('from the disk\n')
    expect(asked.length).toBe(before)
  })

  test('nor is one that answers something else', async () => {
    const { guard, shell } = await scripted()
    const asking = expect(guard.beat()).rejects.toMatchObject({
      code: 'lock-lost',
      detail: expect.stringContaining('"ok"'),
    })
    shell.print('ok\nbeat\n')
    await asking
    expect(guard.isHeld).toBe(false)
    await expect(guard.ping()).rejects.toMatchObject({ code: 'lock-lost' })
  })
})

test('a quick command that meets a slow disk costs no lock within half a minute', async () => {
  const { guard, shell, asked } = await scripted()
  const running = guard.run(shellScript('sync', 'sync', [], { isQuick: true }))
  await vi.advanceTimersByTimeAsync(29_000)
  const token = asked[0]!.split(' ')[1]
  shell.print(`\n${token} 0\n\n${token}\n`)
  expect(await running).toMatchObject({ status: 0 })
  expect(guard.isHeld).toBe(true)
})

describe('what takes a way of its own to the host', () => {
  const command = shellScript('read on and on', 'kill -INT 1')

  test('is begun without a question while the lock was heard of just now', async () => {
    const { node, asked } = await scripted()
    expect((await node.run(command)).stdout).toBe('from the disk\n')
    expect(asked).toEqual([])
  })

  test('is not begun without the lock', async () => {
    const { guard, node, shell } = await scripted()
    const asking = expect(guard.beat()).rejects.toMatchObject({ code: 'lock-lost' })
    shell.print('what?\n')
    await asking
    await expect(node.run(command)).rejects.toMatchObject({ code: 'lock-lost', node: 'pg1' })
    await expect(node.start(command)).rejects.toMatchObject({ code: 'lock-lost', node: 'pg1' })
  })

  test('asks first where the control host slept meanwhile: somebody else may have the lock by now', async () => {
    for (const answer of ['pong\n', null]) {
      const { node, shell, asked } = await scripted()
      vi.setSystemTime(Date.now() + 45_000)
      const running = node.run(command)
      await vi.advanceTimersByTimeAsync(1)
      expect(asked).toEqual(['ping'])
      if (answer === null) shell.exit(1)
      else shell.print(answer)
      if (answer === null) await expect(running).rejects.toMatchObject({ code: 'lock-lost' })
      else expect((await running).stdout).toBe('from the disk\n')
    }
  })
})
