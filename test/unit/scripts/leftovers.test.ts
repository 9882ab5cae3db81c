import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { temporaryFolder } from '../config/inventory-file.ts'

const root = fileURLToPath(new URL('../../..', import.meta.url))

interface Checkout {
  /** Copied from ours. */
  readonly copied: readonly string[]
  /** Stand-ins. */
  readonly written: Readonly<Record<string, string>>
}

/** Runs a script of a checkout that holds only this, with a folder for temporary files of its own. */
async function runIn({ copied, written }: Checkout, script: string) {
  const folder = await temporaryFolder()
  const [checkout, temporary] = [join(folder, 'checkout'), join(folder, 'tmp')]
  for (const path of copied) cpSync(join(root, path), join(checkout, path), { recursive: true })
  for (const [path, text] of Object.entries(written)) {
    mkdirSync(dirname(join(checkout, path)), { recursive: true })
    writeFileSync(join(checkout, path), text)
  }
  mkdirSync(temporary)
  for (const path of [folder, temporary]) chmodSync(path, 0o777)
  // Root's own sandbox is always below /tmp.
  const as = process.getuid?.() === 0 ? ['setpriv', '--reuid', '65534', '--clear-groups'] : ['env']
  const words = [...as, process.execPath, join(checkout, script)]
  const { PATH } = process.env
  const env = { PATH, TMPDIR: temporary, HOME: temporary, npm_execpath: join(checkout, 'npm.mjs') }
  const { status, stderr } = spawnSync(words[0]!, words.slice(1), { env, encoding: 'utf8' })
  return { status, stderr, left: readdirSync(temporary) }
}

test('a quickstart whose packages cannot be installed leaves no folder behind', async () => {
  const written = { 'npm.mjs': 'process.exit(1)', 'package-lock.json': '{}' }
  const ran = await runIn({ copied: ['scripts'], written }, 'scripts/quickstart.mjs')
  expect(ran).toMatchObject({ status: 1, left: [] })
  expect(ran.stderr).toContain('"npm ci" failed')
})

test('npm test leaves no folder behind where vitest dies without results', async () => {
  const written = {
    'package-lock.json': '{}',
    'node_modules/.package-lock.json': '{}',
    'node_modules/vitest/vitest.mjs': "process.kill(process.pid, 'SIGKILL')",
    'scripts/build.mjs': '',
    'scripts/lib/requirements.mjs':
      'export const ensureRequirements = () => []; export class MissingRequirements extends Error {}',
  }
  const ran = await runIn(
    { copied: ['scripts/test.mjs', 'scripts/lib/packages.mjs'], written },
    'scripts/test.mjs',
  )
  expect(ran).toMatchObject({ status: 1, left: [] })
  expect(ran.stderr).toContain('vitest ended with SIGKILL and left no results')
})
