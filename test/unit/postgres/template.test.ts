import { describe, expect, test } from 'vitest'
import { renderTemplate } from '../../../src/postgres/template.ts'

test.each([
  ['{{ v | config_value }}', "it's \\ %p", "'it''s \\\\ %p'"],
  ['{{ v | shell }}', "it's $(x)", "'it'\\''s $(x)'"],
  ['{{ v | hba_field }}', 'my db', '"my db"'],
  ['%p %f %% {{ v }}', 'x', '%p %f %% x'],
  ['{{ v }}', '<&">', '<&">'],
  ['{{ v | config_value }}', 10, "'10'"],
  ['{% if v %}yes{% else %}no{% endif %}', null, 'no'],
])('%j with %j gives %s', (text, v, result) => {
  expect(renderTemplate(text, { v })).toBe(result)
})

describe('a template that cannot be filled', () => {
  test.each([
    ['a\n  {{ nope }}', 'line 2, column 6', 'Undefined variable: nope.'],
    ['{{ v.nope }}', 'line 1, column 4', 'Undefined variable: v.nope.'],
    ['{% if nope %}{% endif %}', 'line 1, column 7', 'Undefined variable: nope.'],
    ['{{ v.constructor }}', 'line 1, column 4', 'Undefined variable: v.constructor.'],
    ['{{ v | nope }}', 'line 1, column 1', 'Undefined filter: nope.'],
    ['x\n{% if v', 'line 2, column 1', 'Tag "{% if v" not closed.'],
  ])('%j: %s', (text, place, detail) => {
    expect(() => renderTemplate(text, { v: {} }, 'templates/standby.conf')).toThrow(
      expect.objectContaining({
        code: 'template-invalid',
        message: `cannot fill templates/standby.conf, ${place}`,
        detail,
      }),
    )
  })

  test('no file is ever included', () => {
    expect(() => renderTemplate('{% render "package.json" %}', {})).toThrow(
      expect.objectContaining({ code: 'template-invalid' }),
    )
  })

  test('a value that a filter refuses is told with its place', () => {
    expect(() => renderTemplate('{{ v | shell }}', { v: 'a\0' }, 'x.sh')).toThrow(
      expect.objectContaining({ code: 'template-invalid', detail: expect.stringContaining('NUL') }),
    )
  })
})
