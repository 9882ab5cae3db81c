import { expect, test } from 'vitest'
import { inventoryJsonSchema } from '../../../src/config/json-schema.ts'

interface Schema {
  readonly description?: string
  readonly type?: string | readonly string[]
  readonly anyOf?: readonly Schema[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: Schema | boolean
  readonly required?: readonly string[]
  readonly enum?: readonly string[]
}

const schema = inventoryJsonSchema() as unknown as Schema & { $schema: string; title: string }

test('the JSON Schema says what it is for', () => {
  expect(schema.$schema).toBe('https://json-schema.org/draft/2020-12/schema')
  expect(schema.title).toBe('replctl.yaml')
  expect(schema.required).toEqual(['cluster', 'nodes'])
})

test('every key is described, and no other is allowed', () => {
  const undescribed: string[] = []
  const open: string[] = []
  const walk = (part: Schema, path: string) => {
    if (part.properties && part.additionalProperties !== false) open.push(path)
    for (const [key, child] of Object.entries(part.properties ?? {})) {
      if (!child.description) undescribed.push(`${path}.${key}`)
      walk(child, `${path}.${key}`)
    }
    for (const child of part.anyOf ?? []) walk(child, path)
    if (typeof part.additionalProperties === 'object') walk(part.additionalProperties, `${path}.*`)
  }
  walk(schema, '')
  expect(undescribed).toEqual([])
  expect(open).toEqual([])
})

test('an editor can complete words, and knows what may be written', () => {
  const { replication, nodes } = schema.properties ?? {}
  expect(replication?.properties?.mode?.enum).toEqual(['async', 'sync', 'quorum'])
  expect(schema.properties?.cluster).toMatchObject({ pattern: '^[a-z][a-z0-9_-]{0,30}$' })
  const node = nodes?.additionalProperties as Schema
  expect(node.required).toEqual(['host'])
  expect(node.properties?.delay).toMatchObject({ type: ['string', 'number'] })
  expect(Object.keys(node.properties ?? {})).toEqual(expect.arrayContaining(['data_dir', 'ssh', 'upstream']))
})

test('it is plain JSON', () => {
  expect(JSON.parse(JSON.stringify(schema))).toEqual(schema)
})
