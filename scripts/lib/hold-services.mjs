import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'

const policyFile = '/usr/sbin/policy-rc.d'

/**
 * Keeps Debian's packages from starting services while they are installed. Returns what takes that back. It says in itself whose
 * it is: one that a killed run left behind would keep every service of this machine from being started at its installation, for ever.
 * `prefix`: what becomes root, e.g. `['sudo', '-n']`.
 */
export function holdServices(prefix, path = policyFile) {
  if (existsSync(path)) return () => {}
  const goOn = () => {} // an interrupted apt-get ends by itself: what was written here must be removed all the same
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP']
  for (const name of signals) process.on(name, goOn)
  writeAs(prefix, path, `#!/bin/sh\n${signature}${process.pid}\nexit 101\n`, '755')
  return () => {
    remove(prefix, path)
    for (const name of signals) process.off(name, goOn)
  }
}

/** Whether a run that was killed (SIGKILL, a crash of the machine) left it behind. */
export function hasLeftover(path = policyFile) {
  if (!existsSync(path)) return false
  const [, pid] = readFileSync(path, 'utf8').split(signature)
  return pid !== undefined && !isRunning(Number.parseInt(pid, 10))
}

/** `prefix`: undefined where nothing can become root. */
export function removeLeftover(prefix, path = policyFile) {
  if (prefix) remove(prefix, path)
  console.error(
    `${path}: left behind by an installation that was killed${prefix ? '; removed' : ': remove it as root'}`,
  )
}

const signature = '# Until packages are installed for replctl by the process '

export function writeAs(prefix, path, text, mode) {
  const script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
  const [program, ...args] = [...prefix, 'sh', '-c', script, 'sh', path, mode]
  spawnSync(program, args, { input: text, stdio: ['pipe', 'inherit', 'inherit'] })
}

function remove(prefix, path) {
  const [program, ...args] = [...prefix, 'rm', '-f', path]
  spawnSync(program, args)
}

function isRunning(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}
