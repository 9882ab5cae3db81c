#!/usr/bin/env node
// `npm test`: installs what is missing, builds, runs all tests, and says in its last line how many passed and failed.
// Only the standard library is imported here: node_modules may not be there yet. Arguments go to vitest.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensurePackages } from './lib/packages.mjs'
import { ensureRequirements, MissingRequirements } from './lib/requirements.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const vitestArguments = process.argv.slice(2)
// vitest gets them too, as the terminal's, and ends its tests in order; we wait for it
for (const name of ['SIGINT', 'SIGHUP']) process.on(name, () => {})

if (!ensurePackages()) fail('npm ci failed')
runNode(['scripts/build.mjs'], 'the build failed')
try {
  ensureRequirements('tests')
} catch (error) {
  if (!(error instanceof MissingRequirements)) throw error
  fail(error.message)
}
process.exitCode = runTests()

function runTests() {
  const folder = mkdtempSync(join(tmpdir(), 'replctl-results-'))
  try {
    const results = join(folder, 'results.json')
    const skipped = join(folder, 'skipped.json')
    const reporters = ['default', 'json', join(root, 'scripts/lib/skipped-reporter.mjs')]
    const { status, signal } = spawnSync(
      process.execPath,
      [
        ...['node_modules/vitest/vitest.mjs', 'run', ...reporters.map((name) => `--reporter=${name}`)],
        ...[`--outputFile.json=${results}`, ...vitestArguments],
      ],
      { cwd: root, stdio: 'inherit', env: { ...process.env, REPLCTL_SKIPPED_TESTS: skipped } },
    )
    if (!existsSync(results)) {
      console.error(`\nerror: vitest ended with ${signal ?? `status ${status}`} and left no results`)
      return 1
    }
    if (existsSync(skipped)) tellSkipped(JSON.parse(readFileSync(skipped, 'utf8')))
    return summarise(JSON.parse(readFileSync(results, 'utf8')), status)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function tellSkipped(tests) {
  if (tests.length === 0 || vitestArguments.some((word) => /^(-t|--testNamePattern)\b/.test(word))) return
  console.log('\nskipped:')
  for (const { name, reason } of tests) console.log(`  ${name}${reason ? ` [${reason}]` : ''}`)
}

/** Prints the last line and returns the exit code. A file whose tests could not be loaded counts as one that failed. */
function summarise(results, status) {
  const unloaded = results.testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  )
  for (const file of unloaded) console.log(`\ncould not run ${file.name}\n  ${file.message}`)
  const passed = results.numPassedTests
  const failed = results.numFailedTests + unloaded.length
  const skipped = results.numPendingTests + (results.numTodoTests ?? 0)
  if (passed + failed === 0) console.log('\nno test was run')
  else if (failed === 0 && status !== 0) console.log(`\nvitest ended with status ${status}: see above`)
  console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
  return failed === 0 && passed > 0 && status === 0 && results.success ? 0 : 1
}

function runNode(args, failure) {
  if (spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' }).status !== 0) fail(failure)
}

function fail(message) {
  console.error(`\nerror: ${message}`)
  process.exit(1)
}
