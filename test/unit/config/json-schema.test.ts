import { describe, expect, test } from 'vitest'
import { inventoryJsonSchema } from '../../../src/config/json-schema.ts'
import { inventorySchema } from '../../../src/config/schema.ts'

interface Schema {
  readonly description?: string
  readonly type?: string | readonly string[]
  readonly anyOf?: readonly Schema[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: Schema | boolean
  readonly required?: readonly string[]
  readonly enum?: readonly string[]
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly multipleOf?: number
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

describe('what the checker refuses the JSON Schema refuses, too, and takes what it takes', () => {
  const part = (path: string) =>
    path.split('.').reduce<Schema>((at, key) => {
      if (key === '*') return at.additionalProperties as Schema
      return at.properties?.[key] as Schema
    }, schema)
  /** As much of a JSON Schema as is used here. */
  const takes = (at: Schema, value: string | number): boolean =>
    typeof value === 'string'
      ? at.pattern === undefined || new RegExp(at.pattern, 'u').test(value)
      : (at.minimum ?? value) <= value &&
        value <= (at.maximum ?? value) &&
        (at.exclusiveMinimum === undefined || at.exclusiveMinimum < value) &&
        (at.multipleOf === undefined || value % at.multipleOf === 0)
  const checks = (path: string, value: string | number): boolean => {
    const [section, ...rest] = path.split('.')
    const [name] = rest.slice(-1)
    const own = { [String(name)]: value }
    const file: Record<string, unknown> = { cluster: 'shop', nodes: { pg1: { host: 'a' } } }
    if (section === 'nodes') file.nodes = { pg1: { host: 'a', ...own } }
    else if (section === 'archive') file.archive = { host: 'a', dir: '/a', ...own }
    else file[String(section)] = own
    return inventorySchema.safeParse(file).success
  }

  test.each<[string, readonly (string | number)[]]>([
    ['nodes.*.delay', ['1h', '1h30min', '1.5 d', '0', 0, 5, '5', '5m', 'soon', '', '1h30', -1]],
    ['ssh.connect_timeout', ['5s', '500ms', 5, '5', 1.5, -1, 'x', '5 sec']],
    ['archive.max_backup_age', ['25h', '1d12h', 5, 0, '5', 'x']],
    ['replication.max_candidate_lag', ['16MB', '1.5GB', '1GB 512MB', 0, '0', 16, '16', '16KB', '16mb']],
    ['replication.max_slot_wal_keep_size', ['10GB', -1, '-1', 0, 10, '10', -2, '1GB512MB', '10gb']],
    ['postgres.data_dir', ['/srv/pg', '/srv/pg/', 'srv', '/', '//', '/..', '', '/a\nb', '/.pg']],
    ['nodes.*.host', ['a', '10.0.0.1', '::1', 'fe80::1%eth0', '[::1]', 'a b', 'root@a', 'a:22', '', '-a']],
    ['nodes.*.os_user', ['postgres', '-x', 'a b', '', 'a:b']],
    ['postgres.database', ['postgres', 'a b', '', ' ', 'a\nb']],
  ])('%s', (path, values) => {
    const at = part(path)
    for (const value of values) expect([value, takes(at, value)]).toEqual([value, checks(path, value)])
  })

  test('at least one node is needed', () => {
    expect(schema.properties?.nodes).toMatchObject({ minProperties: 1 })
  })
})

test('it is plain JSON', () => {
  expect(JSON.parse(JSON.stringify(schema))).toEqual(schema)
})
