import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { build } from 'esbuild'

/**
 * Runs a piece of TypeScript in a Node.js process of its own, for tests that kill the client.
 * `source` imports from `src/`; it prints lines that the test waits for.
 */
export async function startClient(folder: string, source: string): Promise<ClientProcess> {
  const outfile = join(folder, `client-${Math.random().toString(36).slice(2)}.cjs`)
  await build({
    stdin: { contents: source, resolveDir: join(import.meta.dirname, '..', '..', '..', 'src'), loader: 'ts' },
    bundle: true,
    platform: 'node',
    format: 'cjs',
    external: ['cpu-features', '*.node'],
    outfile,
    logLevel: 'error',
  })
  const child = spawn(process.execPath, [outfile], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8')
    stream.on('data', (text: string) => {
      output += text
    })
  }
  return { child, output: () => output }
}

export interface ClientProcess {
  readonly child: ChildProcess
  /** Everything it printed so far. */
  output(): string
}
