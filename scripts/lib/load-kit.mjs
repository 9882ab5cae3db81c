import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'

/** Imports test/kit, or a folder of test/ that rests on it, for scripts: it is TypeScript, and the oldest Node.js we support runs none. */
export async function loadKit(folder = 'kit') {
  const source = fileURLToPath(new URL(`../../test/${folder}/index.ts`, import.meta.url))
  // Two folders deep as test/kit is, so that what the kit finds relative to itself is found.
  const bundle = fileURLToPath(new URL(`../../node_modules/.cache/replctl-${folder}.mjs`, import.meta.url))
  mkdirSync(dirname(bundle), { recursive: true })
  await build({
    entryPoints: [source],
    outfile: bundle,
    bundle: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
    logLevel: 'error',
  })
  return import(pathToFileURL(bundle).href)
}
