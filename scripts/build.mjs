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
  // Names stay as they are: to keep them beside minified ones would cost a call for each function at start-up.
  minifySyntax: true,
  minifyWhitespace: true,
  // pg asks for it to tell where it runs; in Node.js that alone would load a whole HTTP client, some 30 ms.
  define: { Response: 'undefined' },
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
