import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { findInventoryPath } from '../../../src/config/load-inventory.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { temporaryFolder } from './inventory-file.ts'

/** A working directory and a home, each with an inventory if asked for. */
async function makePlaces({ here = false, inHome = false } = {}) {
  const folder = await temporaryFolder()
  const cwd = join(folder, 'work')
  const home = join(folder, 'home')
  const config = join(home, '.config', 'replctl')
  for (const path of [cwd, config]) await mkdir(path, { recursive: true })
  if (here) await writeFile(join(cwd, 'replctl.yaml'), '')
  if (inHome) await writeFile(join(config, 'replctl.yaml'), '')
  return { cwd, home, folder }
}

describe('the inventory is found', () => {
  test('by --config first, whether it is there or not', async () => {
    const { cwd, home } = await makePlaces({ here: true })
    const env = { REPLCTL_CONFIG: '/from/env.yaml' }
    expect(findInventoryPath({ flag: 'x/y.yaml', env, cwd, home })).toBe(join(cwd, 'x/y.yaml'))
    expect(findInventoryPath({ flag: '~/y.yaml', env, cwd, home })).toBe(join(home, 'y.yaml'))
  })

  test('by $REPLCTL_CONFIG next', async () => {
    const { cwd, home } = await makePlaces({ here: true })
    expect(findInventoryPath({ env: { REPLCTL_CONFIG: '/from/env.yaml' }, cwd, home })).toBe('/from/env.yaml')
    expect(findInventoryPath({ env: { REPLCTL_CONFIG: '' }, cwd, home })).toBe(join(cwd, 'replctl.yaml'))
  })

  test('in the working directory next', async () => {
    const { cwd, home } = await makePlaces({ here: true, inHome: true })
    expect(findInventoryPath({ env: {}, cwd, home })).toBe(join(cwd, 'replctl.yaml'))
  })

  test('in ~/.config at last, or where $XDG_CONFIG_HOME says', async () => {
    const { cwd, home, folder } = await makePlaces({ inHome: true })
    const inHome = join(home, '.config/replctl/replctl.yaml')
    expect(findInventoryPath({ env: {}, cwd, home })).toBe(inHome)
    expect(findInventoryPath({ env: { XDG_CONFIG_HOME: 'relative' }, cwd, home })).toBe(inHome)
    const elsewhere = join(folder, 'xdg')
    await mkdir(join(elsewhere, 'replctl'), { recursive: true })
    await writeFile(join(elsewhere, 'replctl/replctl.yaml'), '')
    expect(findInventoryPath({ env: { XDG_CONFIG_HOME: elsewhere }, cwd, home })).toBe(
      join(elsewhere, 'replctl/replctl.yaml'),
    )
  })

  test('also where it cannot be seen: no other inventory takes its place', async () => {
    const { cwd, home } = await makePlaces({ inHome: true })
    await symlink('/nonexistent/shop.yaml', join(cwd, 'replctl.yaml'))
    expect(findInventoryPath({ env: {}, cwd, home })).toBe(join(cwd, 'replctl.yaml'))
    const circle = join(cwd, 'circle')
    await symlink(circle, circle)
    expect(findInventoryPath({ env: {}, cwd: circle, home })).toBe(join(circle, 'replctl.yaml'))
  })

  test('not below what is no folder', async () => {
    const { cwd, home } = await makePlaces({ inHome: true })
    await writeFile(join(cwd, 'file'), '')
    expect(findInventoryPath({ env: {}, cwd: join(cwd, 'file'), home })).toContain(home)
  })

  test('nowhere: the error names the places and the way out', async () => {
    const { cwd, home } = await makePlaces()
    try {
      findInventoryPath({ env: {}, cwd, home })
      expect.unreachable()
    } catch (error) {
      expect(error).toBeInstanceOf(ReplctlError)
      expect(error).toMatchObject({ code: 'inventory-missing', exitCode: 2 })
      expect((error as ReplctlError).detail).toContain(join(cwd, 'replctl.yaml'))
      expect((error as ReplctlError).hint).toContain('replctl new')
    }
  })
})
