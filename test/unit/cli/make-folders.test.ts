import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { makeFolders } from '../../../src/cli/sandbox/make-folders.ts'

let top: string
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'replctl-folders-'))
  await mkdir(join(top, 'mine'), { mode: 0o700 })
})
afterEach(() => rm(top, { recursive: true }))

const modeOf = async (path: string) => ((await stat(join(top, path))).mode & 0o777).toString(8)

test('everybody may pass through what was made for all, and through nothing else', async () => {
  await makeFolders(join(top, 'mine/a/b'), true)
  await makeFolders(join(top, 'mine/own/c'), false)
  const modes = await Promise.all(['mine', 'mine/a', 'mine/a/b', 'mine/own', 'mine/own/c'].map(modeOf))
  expect(modes).toEqual(['700', '755', '755', '700', '700'])
  await makeFolders(join(top, 'mine'), true)
  expect(await modeOf('mine')).toBe('700')
})
