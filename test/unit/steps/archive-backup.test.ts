import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { freeForBackupScript, roomForBackup } from '../../../src/steps/archive-backup.ts'

const GB = 2 ** 30

test('a backup that is not packed needs its size twice while it is proved; an incremental one does not need that of a full one', () => {
  expect(Math.round(roomForBackup(100 * GB, false, true) / GB)).toBe(130)
  expect(Math.round(roomForBackup(100 * GB, false, false) / GB)).toBe(210)
  expect(roomForBackup(100 * GB, true, true)).toBeLessThan(GB)
})

test('what an unfinished backup holds counts as free: it is this one, or goes when this one begins', () => {
  const home = mkdtempSync(join(tmpdir(), 'replctl-room-'))
  const script = `df() { printf 'head\\nx 9 9 5000 1%% /\\n'; }${freeForBackupScript}`
  const free = (dir: string) =>
    Number(execFileSync('sh', ['-c', script, 'sh', dir], { encoding: 'utf8' }).trim())
  expect(free(join(home, 'archive/7/backup'))).toBe(5000)
  const fill = 'mkdir -p .incoming-x/new && head -c 2000000 /dev/zero > .incoming-x/new/base.tar'
  execFileSync('sh', ['-c', fill], { cwd: home })
  expect(free(home)).toBeGreaterThan(6900)
  rmSync(home, { recursive: true })
})
