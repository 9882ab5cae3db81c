import { describe, expect, test } from 'vitest'
import {
  applicationNameFor,
  cloneApplicationName,
  slotNameFor,
} from '../../../src/cluster/replication-names.ts'

describe('a slot name', () => {
  test.each([
    ['shop', 'pg1', 'shop_pg1'],
    ['shop', 'pg-1', 'shop_pg_1'],
    ['my-shop', 'PG.2.example.com', 'my_shop_pg_2_example_com'],
    ['shop', 'N3', 'shop_n3'],
    ['shop', 'any', 'shop_any'],
  ])('of %s and %s is %s', (cluster, node, expected) => {
    expect(slotNameFor(cluster, node)).toBe(expected)
  })

  test('has at most 63 characters, and long ones with the same beginning differ', () => {
    const names = ['1', '2', 'a', 'A'].map((end) => slotNameFor('shop', 'n'.repeat(69) + end))
    for (const name of names) expect(name).toMatch(/^shop_n{49}_[0-9a-f]{8}$/)
    expect(new Set(names).size).toBe(4)
    expect(names[0]).toHaveLength(63)
  })

  test('of exactly 63 characters is not cut', () => {
    expect(slotNameFor('shop', 'n'.repeat(58))).toBe(`shop_${'n'.repeat(58)}`)
  })

  test('stays the same from call to call', () => {
    expect(slotNameFor('shop', 'n'.repeat(70))).toBe(slotNameFor('shop', 'n'.repeat(70)))
  })
})

describe('an application name', () => {
  test('keeps case and characters', () => {
    expect(applicationNameFor('my-shop', 'PG.2.example.com')).toBe('my-shop_PG.2.example.com')
  })

  test('has at most 63 bytes, and long ones with the same beginning differ', () => {
    const names = ['1', '2'].map((end) => applicationNameFor('shop', 'N-'.repeat(35) + end))
    for (const name of names) expect(Buffer.byteLength(name)).toBe(63)
    expect(new Set(names).size).toBe(2)
  })
})

test('the copy that becomes a node’s data never has the name of a node: it would confirm commits', () => {
  expect(cloneApplicationName('shop_pg2')).toBe('clone:shop_pg2')
  // PostgreSQL cuts what is longer, and a name that is cut must be known when it is looked for.
  expect(cloneApplicationName('n'.repeat(63))).toHaveLength(63)
})
