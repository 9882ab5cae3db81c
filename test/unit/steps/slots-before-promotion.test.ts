import { expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import { ReplctlError } from '../../../src/errors.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import { slotsBeforePromotion } from '../../../src/steps/slots-before-promotion.ts'
import { inventoryOf } from '../some-cluster.ts'

const { nodes } = inventoryOf(['pg3', 'pg4'])

function session(answer: () => unknown, isOpen = true) {
  const asked: string[] = []
  const json = async (sql: string) => {
    asked.push(sql)
    return answer()
  }
  return { asked, sql: { isOpen, json } as unknown as SqlSession }
}

test('all slots are made by one statement, and only where there is somebody to keep WAL for', async () => {
  const { asked, sql } = session(() => ['shop_pg3', 'shop_pg4'])
  await slotsBeforePromotion(nodeName('pg2'), nodes).make(sql)
  expect(asked).toHaveLength(1)
  expect(asked[0]).toContain("ARRAY['shop_pg3', 'shop_pg4']")
  const nobody = session(() => [])
  await slotsBeforePromotion(nodeName('pg2'), []).make(nobody.sql)
  expect(nobody.asked).toEqual([])
})

test('a server that refuses them does not keep the promotion from going on; one that is gone does', async () => {
  const refuse = () => {
    throw new ReplctlError('sql-failed', 'could not create the slot')
  }
  await expect(
    slotsBeforePromotion(nodeName('pg2'), nodes).make(session(refuse).sql),
  ).resolves.toBeUndefined()
  await expect(
    slotsBeforePromotion(nodeName('pg2'), nodes).make(session(refuse, false).sql),
  ).rejects.toMatchObject({ code: 'sql-failed' })
})
