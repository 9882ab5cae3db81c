import type { Surroundings } from './command-spec.ts'
export async function complete(_words: readonly string[], _io: Surroundings): Promise<number> {
  return 0
}
