import type { Call } from '../command-spec.ts'
export async function run(_call: Call): Promise<never> { throw new Error('x') }
