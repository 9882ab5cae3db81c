import { describe, expect, test } from 'vitest'
import type { ClusterRecord, InstanceFacts, NodeFacts } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { createNode } from '../../../src/node/node.ts'
import { announceConfirming, ensureClusterRecord } from '../../../src/steps/ensure-cluster-record.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import { connection, inventoryOf, lsn, recordOf, runningNode, setting, standbyNode } from '../some-cluster.ts'

const members = ['pg1', 'pg2', 'pg3']
const inventory = inventoryOf(members, {}, { mode: 'quorum', syncStandbys: 1 })
const input = { inventory, templates: {} as never }
const [pg1, pg2, pg3] = members.map(nodeName)
const of = (changes: Partial<ClusterRecord> = {}) =>
  recordOf('pg1', members, { isPrimaryGuarded: false, confirmations: 1, ...changes })

/** A step on pg2 that sees these two, and what it writes there. */
function contextOn(leader: NodeFacts, standby: NodeFacts) {
  let text = ''
  const transport = createRecordingTransport().answer(/write cluster.json/, (command) => {
    text = String(command.stdin)
    return text
  })
  const nodes = new Map(
    [leader, standby].map((facts) => {
      const settings = inventory.nodes.find(({ name }) => name === facts.name)!
      const node = createNode(settings, 'shop', transport)
      node.lastSurvey = { at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) }
      return [facts.name, node] as const
    }),
  )
  const ctx = {
    ...{ node: nodes.get(standby.name)!, on: (name: never) => nodes.get(name)!, timeoutMs: 1_000 },
    ...{ signal: new AbortController().signal, isDryRun: false, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  } as unknown as StepContext
  /** The record that the step writes; null: the one that is there is right. */
  const written = async (step: ReturnType<typeof ensureClusterRecord>): Promise<ClusterRecord | null> => {
    if ((await step.check(ctx)).is === 'satisfied') return null
    await step.apply?.(ctx)
    return JSON.parse(text)
  }
  return written
}

const leader = (names: string, record: ClusterRecord | null, changes: Partial<InstanceFacts> = {}) =>
  runningNode(
    'pg1',
    {
      currentLsn: lsn('0/5000000'),
      replication: [connection('pg2', 'quorum', { flushLsn: lsn('0/5000000') })],
      settings: { synchronous_standby_names: setting(names) },
      ...changes,
    },
    { record },
  )
const standby = (record: ClusterRecord | null) => standbyNode('pg2', '0/5000000', {}, { record })

describe('whom commits wait for', () => {
  const announce = announceConfirming([pg2!], pg1!, input, [pg2!, pg3!])[0]!
  const ensure = ensureClusterRecord(pg2!, { primary: pg1!, members: [pg1!, pg2!, pg3!] })

  test('is on record before it is in force, and by name afterwards', async () => {
    const before = of({ confirmers: ['shop_pg2'], generation: 4 })
    const announced = await contextOn(leader('ANY 1 ("shop_pg2")', before), standby(before))(announce)
    expect(announced).toEqual({ ...before, confirmers: ['shop_pg2', 'shop_pg3'], generation: 5 })
    const inForce = leader('ANY 1 ("shop_pg2", "shop_pg3")', announced)
    expect(await contextOn(inForce, standby(announced))(announce)).toBeNull()
    expect(await contextOn(inForce, standby(announced))(ensure)).toBeNull()
    // One that was away has the older one.
    expect(await contextOn(inForce, standby(before))(announce)).toEqual(announced)
  })

  test('loses a name only where the others have all that the primary wrote', async () => {
    const before = of({ confirmers: ['shop_pg2', 'shop_pg3'] })
    const behind = { replication: [connection('pg2', 'quorum', { flushLsn: lsn('0/4FFFFFF') })] }
    const left = 'ANY 1 ("shop_pg2")'
    expect(await contextOn(leader(left, before, behind), standby(before))(ensure)).toBeNull()
    expect(await contextOn(leader(left, before), standby(before))(ensure)).toMatchObject({
      confirmers: ['shop_pg2'],
      generation: 2,
    })
    // What was taken out for good is the operator’s to give up; and another primary’s commits are others.
    const removal = ensureClusterRecord(pg2!, {
      primary: pg1!,
      members: [pg1!, pg2!],
      without: 'shop_pg3',
    })
    expect(await contextOn(leader(left, before, behind), standby(before))(removal)).toMatchObject({
      confirmers: ['shop_pg2'],
      members: ['pg1', 'pg2'],
    })
    const elder = of({ confirmers: ['shop_pg2', 'shop_pg3'], timeline: 2 })
    expect(await contextOn(leader(left, elder, behind), standby(elder))(ensure)).toMatchObject({
      confirmers: ['shop_pg2'],
      timeline: 3,
    })
  })

  test('fewer confirmations than before are on record before they are in force, more only afterwards', async () => {
    const count = async (syncStandbys: number, confirmations: number) => {
      const wished = { ...input, inventory: inventoryOf(members, {}, { mode: 'quorum', syncStandbys }) }
      const before = of({ confirmers: ['shop_pg2', 'shop_pg3'], confirmations })
      const step = announceConfirming([pg2!], pg1!, wished, [pg2!, pg3!])[0]!
      return (await contextOn(leader('ANY 1 ("shop_pg2")', before), standby(before))(step))?.confirmations
    }
    expect(await count(1, 2)).toBe(1)
    expect(await count(2, 1)).toBeUndefined()
  })

  test('is not announced where nobody is waited for, on a record without names, or on that of another primary', async () => {
    const asynchronous = { ...input, inventory: inventoryOf(members) }
    expect(announceConfirming([pg2!], pg1!, asynchronous, [pg2!, pg3!])).toEqual([])
    for (const record of [null, of(), recordOf('pg3', members, { confirmers: ['shop_pg1'] })]) {
      expect(await contextOn(leader('', record), standby(record))(announce)).toBeNull()
    }
  })

  test('stays as an older replctl wrote it where there is nothing to add', async () => {
    const older = of({ confirmations: 0 })
    expect(await contextOn(leader('', older), standby(older))(ensure)).toBeNull()
  })
})

test('the slot of one that was taken out stays on record, through every change after it', async () => {
  const before = of({ removedSlots: ['shop_pg8'] })
  const names = 'ANY 1 ("shop_pg2")'
  const write = contextOn(leader(names, before), standby(before))
  const wish = { primary: pg1!, members: [pg1!, pg2!] }
  const removed = await write(ensureClusterRecord(pg2!, { ...wish, removedSlot: 'shop_pg3' }))
  expect(removed?.removedSlots).toEqual(['shop_pg3', 'shop_pg8'])
  const after = contextOn(leader(names, removed), standby(removed))
  expect(await after(ensureClusterRecord(pg2!, { ...wish, removedSlot: 'shop_pg3' }))).toBeNull()
  expect((await after(ensureClusterRecord(pg2!, { ...wish, members: [pg2!] })))?.removedSlots).toEqual(
    removed?.removedSlots,
  )
})
