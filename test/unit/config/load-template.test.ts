import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { loadTemplate, packageRoot, packageVersion } from '../../../src/config/load-template.ts'
import { failureOf } from './inventory-file.ts'

test('the package knows its own version', async () => {
  const text = await readFile(join(packageRoot(), 'package.json'), 'utf8')
  expect(JSON.parse(text)).toMatchObject({ name: 'replctl', version: packageVersion() })
})

test('a missing template is told by name', async () => {
  expect(await failureOf(loadTemplate('no-such-template'))).toMatchObject({
    code: 'template-invalid',
    message: 'could not read templates/no-such-template of the replctl package',
  })
})
