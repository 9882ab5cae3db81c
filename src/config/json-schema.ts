import * as z from 'zod'
import { inventorySchema } from './schema.ts'

/** JSON Schema of replctl.yaml as it is written, for editors and for the package's replctl.schema.json. */
export function inventoryJsonSchema(): Record<string, unknown> {
  const { $schema, ...schema } = z.toJSONSchema(inventorySchema, { io: 'input', reused: 'inline' })
  return {
    $schema,
    title: 'replctl.yaml',
    description: 'The inventory of a PostgreSQL primary-standby cluster: its nodes, and wishes about them.',
    ...schema,
  }
}
