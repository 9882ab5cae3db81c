import { access } from 'node:fs/promises'
import type { Answer, Call } from '../command-spec.ts'
import { inventoryOf, noSandbox, readMark } from '../sandbox/folder.ts'
import { observeSandbox } from '../sandbox/observe-sandbox.ts'
import { findPlace } from '../sandbox/place.ts'

/** `replctl sandbox status [--dir DIR]`. */
export async function run(call: Call): Promise<Answer> {
  const place = await findPlace(call)
  const isThere = (await readMark(place)) !== null
  if (
    !isThere ||
    !(await access(inventoryOf(place)).then(
      () => true,
      () => false,
    ))
  )
    throw noSandbox(place)
  return await observeSandbox(call, place)
}
