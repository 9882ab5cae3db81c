import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import { nodeName } from '../../../src/cluster/names.ts'
import type { Roles } from '../../../src/cluster/roles.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import type { ReplctlError } from '../../../src/errors.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { sqlFailed } from '../../../src/node/sql-session.ts'
import {
  dropCopiedSlots,
  dropStaleSlots,
  ensureReplicationSlot,
} from '../../../src/steps/replication-slots.ts'
import { createShellTransport } from '../node/shell-transport.ts'
import {
  inventoryOf,
  lsn,
  receiverFrom,
  runningNode,
  slot,
  standbyNode,
  stoppedNode,
} from '../some-cluster.ts'

let home: string
let ctx: StepContext
const roles: Roles = { primary: nodeName('pg1'), upstreams: new Map([[nodeName('pg2'), nodeName('pg1')]]) }
const failover = slot('feed', '0/5000000', { type: 'logical', isFailover: true })
const leads = runningNode('pg1', { currentLsn: lsn('0/5000148'), slots: [failover] })
const comesBack = stoppedNode('pg2', '0/5000028')

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-slots-'))
  const { nodes } = inventoryOf(['pg1', 'pg2'])
  const seen = (facts: NodeFacts) =>
    ({ at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) }) as unknown as Node['lastSurvey']
  const [pg1, pg2] = nodes.map((settings) => {
    const postgres = { ...settings.postgres, dataDir: home }
    return createNode({ ...settings, postgres }, 'shop', createShellTransport(home))
  }) as [Node, Node]
  pg1.lastSurvey = seen(leads)
  pg2.lastSurvey = seen(comesBack)
  ctx = {
    ...{ node: pg2, on: (name: string) => (name === 'pg1' ? pg1 : pg2), timeoutMs: 5_000 },
    ...{ signal: new AbortController().signal, isDryRun: true, isChecking: true, seenAt: new Map() },
    ...{ progress: () => undefined, warn: () => undefined },
  } as StepContext
})
afterEach(() => rm(home, { recursive: true, force: true }))

const inventory = inventoryOf(['pg1', 'pg2'])
const [pg1, pg2] = inventory.nodes.map(({ name }) => name)
const stale = (isReplaced: boolean) => dropStaleSlots(pg2!, inventory, roles, { isReplaced }).check(ctx)
const copied = (isReplaced: boolean) => dropCopiedSlots(pg2!, pg1!, { isReplaced }).check(ctx)
const holdSlots = async (...names: string[]) => {
  for (const name of names) {
    await mkdir(join(home, 'pg_replslot', name), { recursive: true })
    await writeFile(join(home, 'pg_replslot', name, 'state'), Buffer.alloc(200))
  }
}

test('a plan tells of the slots that a stopped node will have to drop once it is back; a copy brings none', async () => {
  expect(await stale(false)).toMatchObject({ is: 'satisfied' })
  expect(await copied(false)).toMatchObject({ is: 'satisfied' })
  await holdSlots('theirs', 'shop_pg1', 'feed')
  expect(await stale(false)).toMatchObject({ is: 'unknown' })
  expect(await copied(false)).toMatchObject({ is: 'pending', because: 'left over: feed' })
  expect(await stale(true)).toMatchObject({ is: 'satisfied' })
  expect(await copied(true)).toMatchObject({ is: 'satisfied' })
})

test('a run has nothing to drop where PostgreSQL does not run', async () => {
  await holdSlots('shop_pg1', 'feed')
  ctx = { ...ctx, isDryRun: false }
  expect(await stale(false)).toMatchObject({ is: 'satisfied' })
  expect(await copied(false)).toMatchObject({ is: 'satisfied' })
})

test('a former primary with a slot for each of many standbys looks at every node once, not once for each slot', async () => {
  const names = Array.from({ length: 17 }, (_, index) => `pg${index + 1}`)
  const many = inventoryOf(names)
  const [leader = '', former = '', ...standbys] = many.nodes.map(({ name }) => name)
  const { address = '' } = many.nodes[0] ?? {}
  const slots = standbys.map((name) => slot(`shop_${name}`, '0/5000000', { isActive: false }))
  const looks: string[] = []
  const nodes = many.nodes.map((settings) => {
    const facts =
      settings.name === leader
        ? leads
        : standbyNode(settings.name, '0/5000148', {
            ...receiverFrom(settings.name, address),
            slots: settings.name === former ? slots : [],
          })
    const node = createNode(settings, 'shop', createShellTransport(home))
    Object.defineProperty(node, 'lastSurvey', {
      get: () => {
        looks.push(settings.name)
        return { at: Number.MAX_VALUE, activity: 0, facts: Promise.resolve(facts) }
      },
    })
    return node
  })
  const on = (name: string) => nodes.find((node) => node.name === name)!
  const upstreams = new Map(names.slice(1).map((name) => [nodeName(name), nodeName(leader)]))
  const step = dropStaleSlots(nodeName(former), many, { primary: nodeName(leader), upstreams })
  const found = await step.check({ ...ctx, node: on(former), on, isDryRun: false } as StepContext)
  expect(found).toEqual({
    is: 'pending',
    because: `left over: ${standbys.map((name) => `shop_${name}`).join(', ')}`,
  })
  expect(looks.toSorted()).toEqual([former, ...standbys].toSorted())
})

test('where there is no room for a slot it is told how there will be', async () => {
  const hintFor = async (sqlState: string) => {
    const sql = {
      value: async () => null,
      execute: () => Promise.reject(sqlFailed('no room', sqlState)),
    }
    const node = { ...ctx.node, openSql: async () => ({ sql, endpoint: '' }) }
    const making = ensureReplicationSlot(pg1!, 'shop_pg2', 'pg2').apply?.({
      ...{ ...ctx, node, on: () => node },
    } as unknown as StepContext)
    return await making?.then(
      () => null,
      (error: ReplctlError) => error.hint,
    )
  }
  expect(await hintFor('55000')).toMatch(/^Raise max_replication_slots on pg1 and restart PostgreSQL there/)
  expect(await hintFor('53400')).toMatch(/^Drop a slot there that nobody needs .* replctl resume$/)
  expect(await hintFor('42501')).toBeUndefined()
})
