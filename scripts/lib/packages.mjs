import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Installs the npm packages of the lockfile where they are not there. Returns whether they are there now. */
export function ensurePackages() {
  if (packagesAreInstalled()) return true
  const npm = process.env.npm_execpath
  const command = npm ? [process.execPath, npm] : ['npm']
  console.error('$ npm ci')
  return (
    spawnSync(command[0], [...command.slice(1), 'ci'], { cwd: root, stdio: ['ignore', 2, 2] }).status === 0
  )
}

/** Builds dist/ where it is older than what it is made of. Returns whether that worked. */
export function ensureBuilt() {
  const built = join(root, 'dist/main.cjs')
  const sources = ['src', 'scripts/build.mjs', 'package-lock.json'].map((path) => newestIn(join(root, path)))
  if (existsSync(built) && statSync(built).mtimeMs >= Math.max(...sources)) return true
  console.error('$ npm run build')
  return (
    spawnSync(process.execPath, ['scripts/build.mjs'], { cwd: root, stdio: ['ignore', 2, 2] }).status === 0
  )
}

/** Whether node_modules holds what the lockfile says: by age, and if that does not tell, by content. */
function packagesAreInstalled() {
  const lockfile = join(root, 'package-lock.json')
  const installed = join(root, 'node_modules/.package-lock.json')
  if (!existsSync(installed)) return false
  if (statSync(installed).mtimeMs >= statSync(lockfile).mtimeMs) return true
  const wanted = JSON.parse(readFileSync(lockfile, 'utf8')).packages
  const present = JSON.parse(readFileSync(installed, 'utf8')).packages
  return Object.entries(wanted).every(([path, { version, optional, devOptional }]) => {
    return path === '' || present[path]?.version === version || (!present[path] && (optional || devOptional))
  })
}

function newestIn(path) {
  const stats = statSync(path)
  if (!stats.isDirectory()) return stats.mtimeMs
  return Math.max(stats.mtimeMs, ...readdirSync(path).map((name) => newestIn(join(path, name))))
}
