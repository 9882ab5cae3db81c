import { describe, expect, test } from 'vitest'
import type { Observation } from '../../../../src/cli/operation.ts'
import {
  choiceBegun,
  forgetVainPromotions,
  refuseToLeaveFenced,
  requireTold,
  toldToPromote,
} from '../../../../src/cli/runs/promote-begun.ts'
import type { NodeFacts } from '../../../../src/cluster/facts.ts'
import { nodeName } from '../../../../src/cluster/names.ts'
import type { Journal } from '../../../../src/engine/journal.ts'
import { ReplctlError } from '../../../../src/errors.ts'
import type { Node } from '../../../../src/node/node.ts'
import type { ControlData } from '../../../../src/postgres/control-data.ts'
import { fenceTitle } from '../../../../src/steps/fence-instance.ts'
import { promotionTitle } from '../../../../src/steps/promote-instance.ts'
import {
  control as controlOf,
  fenceMark,
  inventoryOf,
  observed,
  postmaster,
  recordOf,
  standbyNode,
  stoppedNode,
  timeline,
  unreachableNode,
} from '../../some-cluster.ts'

const journal = (changes: Partial<Journal>): Journal => ({
  ...{ version: 1, command: 'promote', wish: {}, by: 'dba@control', since: '2026-03-01T12:00:00.000Z' },
  ...{ isPastPointOfNoReturn: false, begun: [] },
  ...changes,
})
const seen = (changes: Partial<Journal>, pg1: NodeFacts = stoppedNode('pg1', '0/1')): Observation => {
  const survey = [pg1, standbyNode('pg2', '0/1'), standbyNode('pg3', '0/1')]
  const unfinished = journal(changes)
  return { survey, topology: observed(survey).topology, resumed: unfinished, unfinished }
}
const fencedForPg3 = `pg1: ${fenceTitle('pg3')}`

test('a promotion without a name is taken back as it was begun', () => {
  expect(choiceBegun(seen({ begun: [fencedForPg3] }))).toBe('pg3')
  expect(choiceBegun(seen({ begun: ['pg3: have the replication slot "x"'] }))).toBe('pg3')
  expect(choiceBegun(seen({}))).toBe(undefined)
})

describe('an old primary that was fenced', () => {
  const leave = (pg1: NodeFacts, taken: readonly string[] = []) => {
    const begun = [fencedForPg3]
    refuseToLeaveFenced(seen({ begun }, pg1), nodeName('pg3'), taken.map(nodeName))
  }
  test('and was started as a standby since is not left so by abort', () => {
    expect(() => leave(standbyNode('pg1', '0/1'))).toThrow(/pg1 was fenced for pg3/)
  })
  test('is taken back where it still is what it was, or cannot be reached', () => {
    expect(() => leave(stoppedNode('pg1', '0/1'), ['pg1'])).not.toThrow()
    expect(() => leave(unreachableNode('pg1'))).not.toThrow()
  })
})

describe('who was told to promote', () => {
  test('and cannot be reached: who could lead instead is named, for without a name it is gone on with', () => {
    const hint = (...survey: NodeFacts[]) => {
      try {
        requireTold(observed(survey).topology, nodeName('pg2'))
      } catch (thrown) {
        if (thrown instanceof ReplctlError) return [thrown.code, thrown.hint]
        throw thrown
      }
      return null
    }
    const [pg1, pg2, pg3] = [stoppedNode('pg1', '0/1'), unreachableNode('pg2'), standbyNode('pg3', '0/1')]
    expect(hint(pg1, pg2, pg3)).toEqual([
      'host-unreachable',
      'pg2 was told to promote, and may lead. When it is back: replctl resume. If it is lost for good: replctl promote pg3',
    ])
    expect(hint(pg1, pg2)?.[1]).toContain('no other standby can be promoted now')
    expect(hint(pg1, standbyNode('pg2', '0/1'), pg3)).toBeNull()
  })

  const told = (changes: Partial<Journal>) => toldToPromote(seen(changes), inventoryOf(['pg1', 'pg2', 'pg3']))
  const crossed = { begun: [`pg2: ${promotionTitle}`], isPastPointOfNoReturn: true }

  test('is named by a journal that crossed the point of no return', () => {
    expect(told(crossed)).toBe('pg2')
    expect(told({ ...crossed, isPastPointOfNoReturn: false })).toBe(undefined)
  })

  test('is known also behind an operation that gave way to another one', () => {
    expect(told({ begun: [fencedForPg3], before: journal({ command: 'switchover', ...crossed }) })).toBe(
      'pg2',
    )
  })
})

describe('one that was told to promote and went down', () => {
  const crossed = journal({ begun: [`pg2: ${promotionTitle}`], isPastPointOfNoReturn: true })
  const record = recordOf('pg1', ['pg1', 'pg2'], { timeline: 1 })
  const down = (control: Partial<ControlData> = {}, changes: Partial<NodeFacts> = {}) =>
    stoppedNode('pg2', '0/1', {
      ...{ hasStandbySignal: true, record },
      control: controlOf({ state: 'in archive recovery', timeline: timeline(1), ...control }),
      ...changes,
    })
  const nodes = new Map(
    inventoryOf(['pg1', 'pg2']).nodes.map((one) => [one.name, { name: one.name } as unknown as Node]),
  )
  const isStillCrossed = async (pg2: NodeFacts, found = crossed) => {
    const survey = [stoppedNode('pg1', '0/1', { record }), pg2]
    return (await forgetVainPromotions({ nodes }, found, survey, false)).isPastPointOfNoReturn
  }

  test('never led where it would come up as a standby of the timeline that is on record', async () => {
    expect(await isStillCrossed(down())).toBe(false)
    expect(await isStillCrossed(down({ state: 'shut down in recovery' }))).toBe(false)
  })

  test.each<[string, NodeFacts]>([
    ['it would come up read-write', down({}, { hasStandbySignal: false })],
    ['pg_control says that it led', down({ state: 'in production' })],
    ['it is on a newer timeline', down({ timeline: timeline(2) })],
    ['it was fenced since', down({}, { fence: fenceMark('pg1') })],
    ['it runs', standbyNode('pg2', '0/1', {}, { record })],
    ['something of it runs', down({}, { postmaster: postmaster() })],
    ['it cannot be reached', unreachableNode('pg2')],
  ])('may have led, or may yet: %s', async (_, pg2) => {
    expect(await isStillCrossed(pg2)).toBe(true)
  })

  test('a switchover knows that better by itself', async () => {
    expect(await isStillCrossed(down(), { ...crossed, command: 'switchover' })).toBe(true)
  })

  test('is known also behind an operation that gave way to it', async () => {
    const found = journal({ begun: [fencedForPg3], before: crossed })
    const survey = [stoppedNode('pg1', '0/1', { record }), down()]
    const { before } = await forgetVainPromotions({ nodes }, found, survey, false)
    expect(before?.isPastPointOfNoReturn).toBe(false)
  })
})
