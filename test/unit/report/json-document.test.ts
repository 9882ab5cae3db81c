import { expect, test } from 'vitest'
import { jsonDocument } from '../../../src/report/json-document.ts'

test('is one line with the keys in the order of the contract', () => {
  const text = jsonDocument({
    command: 'init primary',
    cluster: 'shop',
    exitCode: 0,
    changed: true,
    elapsedMs: 412.4,
    result: { steps: [] },
    problems: [
      {
        hint: null,
        message: 'the clocks differ',
        detail: 'By 3 s.\nAt least.',
        node: null,
        severity: 'warning',
        code: 'clock-skew',
      },
      { code: 'locked', severity: 'error', node: 'pg1', message: 'held', hint: 'Wait.' },
    ],
  })
  expect(text).toBe(
    '{"command":"init primary","cluster":"shop","ok":true,"exit_code":0,"changed":true,"elapsed_ms":412,' +
      '"result":{"steps":[]},"problems":[{"code":"clock-skew","severity":"warning","node":null,' +
      '"message":"the clocks differ","detail":"By 3 s.\\nAt least.","hint":null},{"code":"locked",' +
      '"severity":"error","node":"pg1","message":"held","hint":"Wait."}]}\n',
  )
})

test('exists also where nothing could be read', () => {
  const text = jsonDocument({
    command: 'status',
    cluster: null,
    exitCode: 2,
    changed: false,
    elapsedMs: 3,
    result: null,
    problems: [],
  })
  expect(text).toBe(
    '{"command":"status","cluster":null,"ok":false,"exit_code":2,"changed":false,"elapsed_ms":3,"result":null,"problems":[]}\n',
  )
})

test('survives a number that JSON does not have', () => {
  const document = { command: 'x', cluster: null, exitCode: 0, changed: false, elapsedMs: 0, problems: [] }
  expect(JSON.parse(jsonDocument({ ...document, result: { id: 7412345678901234567n } })).result).toEqual({
    id: '7412345678901234567',
  })
})
