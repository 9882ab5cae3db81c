import { ReplctlError } from '../../errors.ts'
import type { Answer } from '../command-spec.ts'
export async function run(): Promise<Answer> {
  throw new ReplctlError('usage', 'being built')
}
