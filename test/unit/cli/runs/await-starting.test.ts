import { describe, expect, test } from 'vitest'
import { awaitStarting, type StartingWait } from '../../../../src/cli/runs/await-starting.ts'
import type { NodeFacts } from '../../../../src/cluster/facts.ts'
import { nodeName } from '../../../../src/cluster/names.ts'
import {
  inventoryOf,
  postmaster,
  runningNode,
  standbyNode,
  stoppedNode,
  unreachableNode,
} from '../../some-cluster.ts'

const starting = (name: string, changes: Partial<NodeFacts> = {}) =>
  stoppedNode(name, '0/1', {
    hasStandbySignal: true,
    postmaster: postmaster({ status: 'starting' }),
    ...changes,
  })

/** Each look at a node gives the next of its facts; the last one stays. */
function waitFor(later: Readonly<Record<string, readonly NodeFacts[]>>, changes: Partial<StartingWait> = {}) {
  const told: string[] = []
  const looks: string[] = []
  const wait: StartingWait = {
    inventory: inventoryOf(['pg1', 'pg2', 'pg3']),
    wanted: undefined,
    timeoutMs: 60_000,
    signal: new AbortController().signal,
    lookAgain: async (node) => {
      looks.push(node)
      const facts = later[node] ?? []
      const nth = looks.filter((one) => one === node).length - 1
      return facts[Math.min(nth, facts.length - 1)]!
    },
    tell: (message) => void told.push(message),
    ...changes,
  }
  return { wait, told, looks }
}

describe('standbys that are starting when somebody is to be chosen', () => {
  test('are waited for until they answer', async () => {
    const { wait, told, looks } = waitFor({
      pg2: [starting('pg2'), standbyNode('pg2', '0/5')],
      pg3: [standbyNode('pg3', '0/7')],
    })
    const seen = await awaitStarting([unreachableNode('pg1'), starting('pg2'), starting('pg3')], wait)
    expect(seen.map(({ instance }) => instance?.isInRecovery)).toEqual([undefined, true, true])
    expect(looks).toEqual(['pg2', 'pg3', 'pg2'])
    expect(told).toEqual(['PostgreSQL is starting on pg2, pg3'])
  })

  test('and one that fails to start is as it was seen last', async () => {
    const { wait } = waitFor({ pg2: [stoppedNode('pg2', '0/1', { hasStandbySignal: true })] })
    const seen = await awaitStarting([unreachableNode('pg1'), starting('pg2'), unreachableNode('pg3')], wait)
    expect(seen[1]?.postmaster?.isAlive ?? false).toBe(false)
  })

  test.concurrent.each<[string, NodeFacts, string | undefined, boolean]>([
    ['another one can lead', standbyNode('pg3', '0/5'), undefined, true],
    ['the one that was named can', standbyNode('pg3', '0/5'), 'pg3', true],
    ['nobody else can lead', stoppedNode('pg3', '0/5'), undefined, false],
    ['it was named itself', standbyNode('pg3', '0/5'), 'pg2', false],
  ])('hold the choice up for three seconds where %s, else up to --timeout', async (_, pg3, named, isOver) => {
    const end = new AbortController()
    const wanted = named === undefined ? undefined : nodeName(named)
    const { wait } = waitFor({ pg2: [starting('pg2')] }, { wanted, signal: end.signal })
    const timer = setTimeout(() => end.abort(), 3_500)
    await awaitStarting([unreachableNode('pg1'), starting('pg2'), pg3], wait)
    clearTimeout(timer)
    expect(end.signal.aborted).toBe(!isOver)
  })

  test('hold nobody up for longer than --timeout', async () => {
    const { wait, looks } = waitFor({ pg2: [starting('pg2')] }, { timeoutMs: 150 })
    await awaitStarting([unreachableNode('pg1'), starting('pg2'), unreachableNode('pg3')], wait)
    expect(looks).toEqual(['pg2', 'pg2'])
  })

  test.each<[string, NodeFacts]>([
    ['a primary that leads', runningNode('pg1', {})],
    ['nothing that starts', standbyNode('pg1', '0/1')],
  ])('are not waited for: %s', async (_, pg1) => {
    const { wait, looks } = waitFor({})
    const survey = [pg1, pg1.instance?.isInRecovery === false ? starting('pg2') : standbyNode('pg2', '0/1')]
    expect(await awaitStarting(survey, wait)).toEqual(survey)
    expect(looks).toEqual([])
  })

  test.each<[string, Partial<NodeFacts>]>([
    ['one that would come up as a primary', { hasStandbySignal: false }],
    ['one that is frozen', { postmaster: postmaster({ status: 'starting', isFrozen: true }) }],
    ['one whose process is gone', { postmaster: postmaster({ status: 'starting', isAlive: false }) }],
    ['one that stops', { postmaster: postmaster({ status: 'stopping' }) }],
  ])('are no such: %s', async (_, changes) => {
    const { wait, looks } = waitFor({})
    await awaitStarting([starting('pg2', changes)], wait)
    expect(looks).toEqual([])
  })
})
