// Bundles src/ into dist/: one small start-up file, and a chunk for what each command really needs.
import { rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
rmSync(`${root}dist`, { recursive: true, force: true })
await build({
  absWorkingDir: root,
  entryPoints: { main: 'src/cli/main.ts', schema: 'src/config/json-schema.ts' },
  outdir: 'dist',
  bundle: true,
  splitting: true,
  minify: true,
  keepNames: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  chunkNames: 'chunk-[hash]',
  banner: {
    // What bundled CommonJS packages expect to find.
    js: [
      "import { createRequire as __createRequire } from 'node:module'",
      "import { fileURLToPath as __fileURLToPath } from 'node:url'",
      'const require = __createRequire(import.meta.url)',
      "const __dirname = __fileURLToPath(new URL('.', import.meta.url))",
    ].join(';'),
  },
  external: ['cpu-features', 'pg-native', '*.node'],
  logLevel: 'warning',
})
const { inventoryJsonSchema } = await import(pathToFileURL(`${root}dist/schema.js`).href)
writeFileSync(`${root}replctl.schema.json`, `${JSON.stringify(inventoryJsonSchema(), null, 2)}\n`)
