import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import { acquireClusterLock, type LockOptions } from '../../../src/engine/cluster-lock.ts'
import type { EngineEvent } from '../../../src/engine/events.ts'
import { ReplctlError } from '../../../src/errors.ts'
import type { Holder } from '../../../src/node/guard.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import type { ScriptedProcess } from '../../../src/transport/scripted-process.ts'
import { inventoryOf } from '../some-cluster.ts'

const holder: Holder = {
  user: 'dba',
  host: 'control1',
  pid: 100,
  command: 'replctl promote pg2',
  since: '2026-03-01T12:00:00.000Z',
}
const other: Holder = {
  ...holder,
  user: 'eve',
  host: 'control2',
  pid: 200,
  command: 'replctl add-standby pg3',
}

/** How the lock's script acts on one node, at each attempt in turn. */
type Act = (process: ScriptedProcess) => void
interface Journal {
  text: string | null
}

const held =
  (by: Holder | string = other, beatAgeSeconds = 0): Act =>
  (process) => {
    process.print(`held ${beatAgeSeconds} ${typeof by === 'string' ? by : JSON.stringify(by)}\n`)
    process.exit(0)
  }
const free =
  (journal: Journal = { text: null }): Act =>
  (process) => {
    process.print(`locked ${journal.text ?? ''}\n`)
    process.onLine((line) => {
      if (line === 'beat') process.print('beat\n')
      else if (line === 'clear') process.print('ok\n')
      else if (line === 'release') process.exit(0)
      else {
        journal.text = line.slice('journal '.length)
        process.print('ok\n')
      }
    })
    process.onInputEnd(() => process.exit(0))
  }
const dead: Act = (process) => process.exit(1)

interface Scene {
  readonly nodes: readonly Node[]
  /** `pg1 +`: the script was started there; `pg1 beat`: what it was told. */
  readonly log: string[]
  readonly events: EngineEvent[]
  readonly options: LockOptions
}

function scene(acts: Readonly<Record<string, readonly Act[]>>, changes: Partial<LockOptions> = {}): Scene {
  const log: string[] = []
  const events: EngineEvent[] = []
  const nodes = inventoryOf(Object.keys(acts)).nodes.map((settings) => {
    const turns = [...(acts[settings.name] ?? [])]
    const transport = createRecordingTransport({ host: settings.host }).answerStart(
      'hold the cluster lock',
      (process) => {
        log.push(`${settings.name} +`)
        process.onLine((line) => log.push(`${settings.name} ${line}`))
        const act = turns.length > 1 ? turns.shift() : turns[0]
        act?.(process)
      },
    )
    return createNode(settings, 'shop', transport)
  })
  const { signal } = new AbortController()
  return {
    nodes,
    log,
    events,
    options: { holder, timeoutMs: undefined, listener: (event) => events.push(event), signal, ...changes },
  }
}

/** Time passes without anybody waiting for it. */
async function settled<T>(
  work: Promise<T>,
  seconds = 120,
): Promise<{ result: T | ReplctlError; ms: number }> {
  const startedAt = Date.now()
  let end: { result: T | ReplctlError; ms: number } | undefined
  const finish = (result: T | ReplctlError) => {
    end = { result, ms: Date.now() - startedAt }
  }
  work.then(finish, finish)
  for (let passed = 0; end === undefined && passed < seconds * 1000; passed += 150) {
    await vi.advanceTimersByTimeAsync(150)
  }
  if (end === undefined) throw new Error('it never ended')
  return end
}
const failure = async (work: Promise<unknown>, seconds?: number) => {
  const { result, ms } = await settled(work, seconds)
  if (!(result instanceof ReplctlError)) throw new Error('expected a failure')
  return { error: result, ms }
}

beforeEach(() => void vi.useFakeTimers({ now: new Date('2026-03-01T12:00:00Z') }))
afterEach(() => void vi.useRealTimers())

describe('taking the lock', () => {
  test('is tried everywhere at once', async () => {
    const { nodes, log, options } = scene({ pg3: [free()], pg1: [free()], pg2: [free()] })
    await (await acquireClusterLock(nodes, options)).release()
    expect(log.slice(0, 3)).toEqual(['pg1 +', 'pg2 +', 'pg3 +'])
  })

  test('of two that start together the one with the first node by name stays, and waits for the rest', async () => {
    const { nodes, log, options } = scene({ pg1: [free()], pg2: [held(), held(), free()] })
    const { result, ms } = await settled(acquireClusterLock(nodes, options))
    expect(result).not.toBeInstanceOf(ReplctlError)
    expect(ms).toBeLessThan(500)
    expect(log).toEqual(['pg1 +', 'pg2 +', 'pg2 +', 'pg2 +'])
  })

  test('of two that start together the one without the first node gives back what it has, and comes again', async () => {
    const { nodes, log, options } = scene({ pg1: [held(), free()], pg2: [free()] })
    const { result } = await settled(acquireClusterLock(nodes, options))
    expect(result).not.toBeInstanceOf(ReplctlError)
    expect(log).toEqual(['pg1 +', 'pg2 +', 'pg2 release', 'pg1 +', 'pg2 +'])
  })

  test('a node that cannot be reached keeps none', async () => {
    const { nodes, log, options } = scene({ pg1: [free()], pg2: [free()] })
    nodes[0]!.transport.connect = () => Promise.reject(new ReplctlError('host-unreachable', 'off'))
    const lock = await acquireClusterLock(nodes, options)
    expect([log, lock.isHeld]).toEqual([['pg2 +'], true])
    await lock.release()
  })

  test('tells the holder’s line to each node', async () => {
    const { nodes, options } = scene({ pg1: [free()] })
    const lock = await acquireClusterLock(nodes, options)
    const { command } = (nodes[0]!.transport as ReturnType<typeof createRecordingTransport>).calls[0]!
    expect(command?.args.slice(0, 2)).toEqual(['.replctl/shop', JSON.stringify(holder)])
    await lock.release()
  })

  test('whoever holds it watches its host, until it is given back', async () => {
    const { nodes, options } = scene({ pg1: [free()], pg2: [free()] })
    nodes[1]!.transport.connect = () => Promise.reject(new ReplctlError('host-unreachable', 'off'))
    const lock = await acquireClusterLock(nodes, options)
    expect(nodes.map((node) => node.shell !== null)).toEqual([true, false])
    await lock.release()
    expect(nodes.map((node) => node.shell)).toEqual([null, null])
  })

  test('is given back wherever it was taken, if another operation holds it anywhere', async () => {
    const { nodes, log, options } = scene({ pg1: [free()], pg2: [free()], pg3: [held()] }, { timeoutMs: 0 })
    expect((await failure(acquireClusterLock(nodes, options))).error.code).toBe('locked')
    expect(log).toEqual(['pg1 +', 'pg2 +', 'pg3 +', 'pg1 release', 'pg2 release'])
  })

  test('a node that cannot keep a lock does not stop the others', async () => {
    const { nodes, log, options } = scene({ pg1: [dead], pg2: [free()], pg3: [free()] })
    const lock = await acquireClusterLock(nodes, options)
    await lock.confirm(nodeName('pg1'))
    expect(log).toEqual(['pg1 +', 'pg2 +', 'pg3 +', 'pg2 beat', 'pg3 beat'])
    await lock.release()
  })

  test('where no node can keep one, that is the error', async () => {
    const { nodes, options } = scene({ pg1: [dead], pg2: [dead] })
    expect((await failure(acquireClusterLock(nodes, options))).error).toMatchObject({
      code: 'remote-command-failed',
    })
  })

  test('without any node there is nothing to lock', async () => {
    const { options } = scene({})
    const lock = await acquireClusterLock([], options)
    await lock.confirm(nodeName('pg1'))
    await lock.release()
    expect(lock.foundJournals).toEqual([])
  })
})

describe('a lock that is held', () => {
  test('is an error that says who, where, with what, since when', async () => {
    const { nodes, options } = scene({ pg1: [free()], pg2: [held(other, 3)] })
    const { error } = await failure(acquireClusterLock(nodes, options))
    expect(error).toMatchObject({ code: 'locked', exitCode: 8, node: 'pg2', retryable: true })
    expect(error.detail).toBe(
      'eve@control2 (pid 200) holds the cluster with "replctl add-standby pg3" since 2026-03-01T12:00:00.000Z; its lock was seen on pg2, its last sign of life is 3 s old.',
    )
  })

  test('says so as well where its holder cannot be read', async () => {
    const { nodes, options } = scene({ pg1: [held('')] }, { timeoutMs: 0 })
    const { error } = await failure(acquireClusterLock(nodes, options))
    expect(error.detail).toContain('another replctl operation holds the cluster (seen on pg1)')
  })

  const waits: readonly (readonly [string, Act, number | undefined, number, number])[] = [
    ['a living holder is given a moment to go', held(other, 2), undefined, 3_000, 3_500],
    [
      'a holder that fell silent is waited for until its lock dies',
      held(other, 13),
      undefined,
      60_000,
      61_000,
    ],
    ['an explicit time limit is waited for', held(other, 2), 10_000, 10_000, 10_500],
    ['an explicit time limit holds for a silent holder, too', held(other, 30), 1_000, 1_000, 1_500],
    ['a time limit of 0 does not wait', held(other, 2), 0, 0, 200],
  ]
  test.each(waits)('%s', async (_, act, timeoutMs, least, most) => {
    const { nodes, options, events } = scene({ pg1: [act] }, { timeoutMs })
    const { error, ms } = await failure(acquireClusterLock(nodes, options))
    expect(error.code).toBe('locked')
    expect(ms).toBeGreaterThanOrEqual(least)
    expect(ms).toBeLessThanOrEqual(most)
    expect(events.filter((event) => event.type === 'waiting')).toHaveLength(timeoutMs === 0 ? 0 : 1)
  })

  test('is taken as soon as its holder is gone', async () => {
    const { nodes, options, events } = scene({ pg1: [held(other, 20), held(other, 21), free()] })
    const { result, ms } = await settled(acquireClusterLock(nodes, options))
    expect(result).not.toBeInstanceOf(ReplctlError)
    expect(ms).toBeLessThan(1_000)
    expect(events).toEqual([
      {
        type: 'waiting',
        message:
          'eve@control2 (pid 200) holds the cluster with "replctl add-standby pg3" since 2026-03-01T12:00:00.000Z',
      },
    ])
  })

  test('waiting for it can be interrupted', async () => {
    const controller = new AbortController()
    const { nodes, options } = scene({ pg1: [held(other, 20)] }, { signal: controller.signal })
    const taking = failure(acquireClusterLock(nodes, options))
    controller.abort()
    expect((await taking).error.code).toBe('interrupted')
  })

  test('a signal that cuts off the look at a host is told with the state of the cluster', async () => {
    const controller = new AbortController()
    const { nodes, options } = scene({ pg1: [free()] }, { signal: controller.signal })
    const start = async () => {
      controller.abort('SIGTERM')
      throw new ReplctlError('interrupted', 'command on pg1 interrupted: hold the cluster lock')
    }
    const { error } = await failure(
      acquireClusterLock(
        nodes.map((node) => Object.assign(node, { start })),
        options,
      ),
    )
    expect(error).toMatchObject({ code: 'interrupted', detail: 'Nothing was changed.', node: undefined })
    expect(error.message).not.toContain('command on')
  })

  test('two nodes with one state directory are told, not waited for', async () => {
    const { nodes, options, log } = scene({ pg1: [free()], pg2: [held(holder)] })
    const { error } = await failure(acquireClusterLock(nodes, options))
    expect(error).toMatchObject({ code: 'inventory-invalid', exitCode: 2, node: 'pg2' })
    expect(error.detail).toContain('taken for pg1')
    expect(error.hint).toContain('state_dir')
    expect(log).toContain('pg1 release')
  })

  test('interrupted while a host is slow to begin, it is given back where it was taken', async () => {
    const controller = new AbortController()
    const { nodes, options, log } = scene(
      { pg1: [free()], pg2: [(process) => void setTimeout(() => free()(process), 5_000)] },
      { signal: controller.signal },
    )
    const taking = failure(acquireClusterLock(nodes, options))
    await vi.advanceTimersByTimeAsync(1_000)
    controller.abort()
    expect((await taking).error.code).toBe('interrupted')
    expect(log.filter((line) => line.endsWith('release'))).toEqual(['pg1 release', 'pg2 release'])
  })
})

describe('the lock while it is held', () => {
  test('finds the journals of an unfinished operation', async () => {
    const { nodes, options } = scene({
      pg1: [free()],
      pg2: [free({ text: '{"command":"promote","note":"a  b \\\\"}' })],
    })
    const lock = await acquireClusterLock(nodes, options)
    expect(lock.foundJournals).toEqual(['{"command":"promote","note":"a  b \\\\"}'])
    await lock.release()
  })

  test('writes and clears the journal on every node', async () => {
    const journals = [{ text: null }, { text: null }] satisfies Journal[]
    const { nodes, log, options } = scene({ pg1: [free(journals[0])], pg2: [free(journals[1])] })
    const lock = await acquireClusterLock(nodes, options)
    await lock.writeJournal('{"version":1}')
    expect(journals).toEqual([{ text: '{"version":1}' }, { text: '{"version":1}' }])
    await lock.clearJournal()
    await lock.release()
    expect(log.filter((line) => line.startsWith('pg2'))).toEqual([
      ...['pg2 +', 'pg2 journal {"version":1}', 'pg2 clear', 'pg2 release'],
    ])
  })

  test('of a node with a full disk is as good as any, but one of them has to keep the journal', async () => {
    const full: Act = (process) => {
      process.print('locked \n')
      process.onLine((line) => {
        if (line === 'release') process.exit(0)
        else process.print(line === 'beat' ? 'beat\n' : 'failed\n')
      })
    }
    const journal: Journal = { text: null }
    const { nodes, options } = scene({ pg1: [full], pg2: [free(journal)] })
    const lock = await acquireClusterLock(nodes, options)
    await lock.writeJournal('one', [nodeName('pg1')])
    expect(journal.text).toBe('one')
    await lock.confirm(nodeName('pg1'))
    ;(nodes[1]!.transport as ReturnType<typeof createRecordingTransport>).loseConnection()
    await expect(lock.writeJournal('two')).rejects.toMatchObject({ code: 'lock-lost', node: 'pg2' })
    await lock.release()
    const all = scene({ pg1: [full] })
    const other = await acquireClusterLock(all.nodes, all.options)
    await expect(other.writeJournal('one')).rejects.toMatchObject({ code: 'disk-full', exitCode: 3 })
    await other.release()
  })

  test('the journal is no proof where the lock of the node to be changed is gone', async () => {
    const { nodes, options } = scene({ pg1: [free()], pg2: [free()] })
    const lock = await acquireClusterLock(nodes, options)
    ;(nodes[1]!.transport as ReturnType<typeof createRecordingTransport>).loseConnection()
    await expect(lock.writeJournal('one', [nodeName('pg2')])).rejects.toMatchObject({
      code: 'lock-lost',
      node: 'pg2',
    })
    await lock.writeJournal('one', [nodeName('pg1')])
    await lock.release()
  })

  test('a node that went away does not stop the others from knowing; all gone does', async () => {
    const journal: Journal = { text: null }
    const { nodes, options } = scene({ pg1: [free(journal)], pg2: [free()] })
    const lock = await acquireClusterLock(nodes, options)
    const lose = (node: Node) =>
      (node.transport as ReturnType<typeof createRecordingTransport>).loseConnection()
    lose(nodes[1]!)
    await lock.writeJournal('one')
    expect(journal.text).toBe('one')
    lose(nodes[0]!)
    await expect(lock.writeJournal('two')).rejects.toMatchObject({ code: 'lock-lost' })
    await lock.clearJournal()
    await lock.release()
  })

  test('one message writes the journal and proves the lock on the nodes that matter; the others are not waited for', async () => {
    const journal: Journal = { text: null }
    const silent: Act = (process) => process.print('locked\n')
    const { nodes, log, options } = scene({ pg1: [free(journal)], pg2: [free()], pg3: [silent] })
    const lock = await acquireClusterLock(nodes, options)
    await lock.writeJournal('crossing', [nodeName('pg1'), nodeName('pg2')])
    expect(journal.text).toBe('crossing')
    expect(log.filter((line) => line.endsWith('beat'))).toEqual([])
    ;(nodes[1]!.transport as ReturnType<typeof createRecordingTransport>).loseConnection()
    await expect(lock.writeJournal('again', [nodeName('pg1'), nodeName('pg2')])).rejects.toMatchObject({
      code: 'lock-lost',
      node: 'pg2',
    })
  })

  test('is confirmed on the node that is about to be changed', async () => {
    const { nodes, log, options } = scene({ pg1: [free()], pg2: [free()] })
    const lock = await acquireClusterLock(nodes, options)
    await lock.confirm(nodeName('pg2'))
    expect(log.filter((line) => line.endsWith('beat'))).toEqual(['pg2 beat'])
    ;(nodes[1]!.transport as ReturnType<typeof createRecordingTransport>).loseConnection()
    await expect(lock.confirm(nodeName('pg2'))).rejects.toMatchObject({ code: 'lock-lost', node: 'pg2' })
    await lock.confirm(nodeName('pg1'))
    await lock.release()
  })

  test('gives a sign of life every 5 s, until it is released', async () => {
    const { nodes, log, options } = scene({ pg1: [free()] })
    const lock = await acquireClusterLock(nodes, options)
    await vi.advanceTimersByTimeAsync(15_100)
    const beats = () => log.filter((line) => line === 'pg1 beat').length
    expect(beats()).toBe(3)
    await lock.release()
    await vi.advanceTimersByTimeAsync(15_000)
    expect(beats()).toBe(3)
  })
})
