import { inventoryJsonSchema } from '../../config/json-schema.ts'
import { exitCodes } from '../../errors.ts'
import type { Answer } from '../command-spec.ts'

/** `replctl schema`. */
export async function run(): Promise<Answer> {
  const text = `${JSON.stringify(inventoryJsonSchema(), null, 2)}\n`
  return { exitCode: exitCodes.ok, changed: false, cluster: null, result: null, problems: [], text }
}
