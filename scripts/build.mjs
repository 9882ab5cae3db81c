// Bundles src/ into dist/: what starts the process, and everything else in one file, whose compiled code is kept (src/start/).
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
rmSync(`${root}dist`, { recursive: true, force: true })
await build({
  absWorkingDir: root,
  entryPoints: { main: 'src/cli/main.ts', start: 'src/start/start.ts', schema: 'src/config/json-schema.ts' },
  outdir: 'dist',
  outExtension: { '.js': '.cjs' },
  bundle: true,
  // Names stay as they are: to keep them beside minified ones would cost a call for each function at start-up.
  minifySyntax: true,
  minifyWhitespace: true,
  define: {
    'import.meta.dirname': '__dirname',
    // pg asks for it to tell where it runs; in Node.js that alone would load a whole HTTP client, some 30 ms.
    Response: 'undefined',
  },
  format: 'cjs',
  platform: 'node',
  target: 'node20',
  // A script of node:vm imports nothing by itself.
  supported: { 'dynamic-import': false },
  external: ['cpu-features', 'pg-native', '*.node'],
  logLevel: 'warning',
})
// One byte for each character: read and kept in half the time. What esbuild leaves are letters in regular expressions.
const program = `${root}dist/main.cjs`
const escaped = (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
writeFileSync(program, readFileSync(program, 'utf8').replace(/[^\0-\x7f]/g, escaped))
const { inventoryJsonSchema } = createRequire(import.meta.url)(`${root}dist/schema.cjs`)
writeFileSync(`${root}replctl.schema.json`, `${JSON.stringify(inventoryJsonSchema(), null, 2)}\n`)
