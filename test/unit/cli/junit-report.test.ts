import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { requireReportPlace, writeReport } from '../../../src/cli/junit-report.ts'
import { failureOf, temporaryFolder } from '../config/inventory-file.ts'

describe('where the JUnit report goes is looked at before any host is asked', () => {
  test('a new file, an existing one, and one behind a link can be written', async () => {
    const folder = await temporaryFolder()
    await writeFile(join(folder, 'old.xml'), 'old')
    await symlink(join(folder, 'later.xml'), join(folder, 'link.xml'))
    for (const name of ['new.xml', 'old.xml', 'link.xml']) {
      await requireReportPlace(join(folder, name))
    }
    await requireReportPlace('/dev/stdout')
    expect(await readFile(join(folder, 'old.xml'), 'utf8')).toBe('old')
  })

  test.each([
    ['', 'It is a folder.'],
    ['here', 'It is a folder.'],
    ['missing/report.xml', 'There is no such folder.'],
    ['file/report.xml', 'There is no such folder.'],
  ])('"%s" is refused', async (name, detail) => {
    const folder = await temporaryFolder()
    await mkdir(join(folder, 'here'))
    await writeFile(join(folder, 'file'), '')
    const path = name === '' ? folder : join(folder, name)
    expect(await failureOf(requireReportPlace(path))).toMatchObject({
      code: 'usage',
      message: `--junit: cannot write ${path}`,
      detail,
    })
  })

  test('a place that only others may write to is refused', async () => {
    const folder = await temporaryFolder()
    const deny = async (path: string) => {
      throw Object.assign(new Error(path), { code: 'EACCES' })
    }
    const error = await failureOf(requireReportPlace(join(folder, 'report.xml'), deny))
    expect(error).toMatchObject({ code: 'usage', detail: 'The system says EACCES.', exitCode: 2 })
  })
})

test('a report that could not be written after all is a warning, and takes nothing of the result away', async () => {
  const path = join(await temporaryFolder(), 'report.xml')
  expect(await writeReport(path, '<testsuites/>')).toEqual([])
  expect(await readFile(path, 'utf8')).toBe('<testsuites/>')
  expect(await writeReport(join(path, 'below.xml'), '')).toMatchObject([
    {
      code: 'report-not-written',
      severity: 'warning',
      message: `could not write ${path}/below.xml`,
      detail: 'The system says ENOTDIR.',
    },
  ])
})
