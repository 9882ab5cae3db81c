import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Environment } from '../../../src/config/find-inventory.ts'
import type { Inventory } from '../../../src/config/inventory.ts'
import { loadInventory } from '../../../src/config/load-inventory.ts'
import { ReplctlError } from '../../../src/errors.ts'

/** A folder that is gone when the test is over. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'replctl-inventory-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}

export interface LoadTextOptions {
  readonly env?: Environment
  /** Further files in the inventory's folder. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>
}

/** Loads a text as `replctl.yaml` of a folder of its own. */
export async function loadText(text: string | Uint8Array, options: LoadTextOptions = {}): Promise<Inventory> {
  const folder = await temporaryFolder()
  for (const [name, content] of Object.entries(options.files ?? {}))
    await writeFile(join(folder, name), content)
  await writeFile(join(folder, 'replctl.yaml'), text)
  const path = join(folder, 'replctl.yaml')
  return loadInventory(path, { env: options.env ?? {}, home: '/home/dba', cwd: folder })
}

/** What `loadText` raises, to look at. */
export async function failureOf(loading: Promise<unknown>): Promise<ReplctlError> {
  const thrown = await loading.then(
    () => undefined,
    (error: unknown) => error,
  )
  if (thrown instanceof ReplctlError) return thrown
  throw new Error('expected a ReplctlError', { cause: thrown })
}

/** All lines that tell what is wrong with a text. */
export async function problemsOf(
  text: string | Uint8Array,
  options: LoadTextOptions = {},
): Promise<string[]> {
  const { code, message, hint, detail } = await failureOf(loadText(text, options))
  if (code !== 'inventory-invalid') throw new Error(`expected inventory-invalid, got ${code}: ${message}`)
  return detail?.split('\n').slice(1) ?? [hint === undefined ? message : `${message}. ${hint}`]
}

/** An inventory in which only the nodes are left to write. */
export function withNodes(nodes: string): string {
  return `cluster: shop\npostgres: { data_dir: /data }\nnodes:\n${nodes}\n`
}

/** An inventory with two nodes and more at its end. */
export function withMore(more: string): string {
  return `${withNodes('  pg1: { host: a }\n  pg2: { host: b }')}${more}\n`
}
