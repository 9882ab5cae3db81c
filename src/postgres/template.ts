import { Liquid, type LiquidError, type Template } from 'liquidjs'
import { quoteForShell } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import { quoteConfigValue } from './config-file.ts'
import { quoteHbaField } from './hba.ts'

let engine: Liquid | undefined
/** Templates by their text: each is filled for many nodes, and again when it is checked. */
const parsed = new Map<string, Template[]>()

/** Made when the first template is filled: commands that only look have no use for it. */
function liquid(): Liquid {
  if (engine !== undefined) return engine
  // Nothing is found by accident: no file is included, no name or filter may be missing. No template needs a locale: to look
  // for that of the machine would load all of ICU, some 30 ms.
  engine = new Liquid({
    strictVariables: true,
    strictFilters: true,
    ownPropertyOnly: true,
    templates: {},
    locale: 'en-US',
  })
  // For postgresql.conf: `{{ name | config_value }}`.
  engine.registerFilter('config_value', (value: unknown) => quoteConfigValue(String(value)))
  // For a word of a shell command: `{{ path | shell }}`.
  engine.registerFilter('shell', (value: unknown) => quoteForShell(String(value)))
  // For a database, role or address of pg_hba.conf that is no keyword: `{{ user | hba_field }}`.
  engine.registerFilter('hba_field', (value: unknown) => quoteHbaField(String(value)))
  return engine
}

/**
 * Fills a Liquid template. A value that may be absent is given as null and asked for with `{% if %}`.
 * @param name what errors call the template, e.g. `templates/standby.conf`
 * @throws {ReplctlError} `template-invalid`, naming template, line and column, also for a missing value
 * @see https://liquidjs.com/
 */
export function renderTemplate(
  text: string,
  values: Readonly<Record<string, unknown>>,
  name = 'template',
): string {
  try {
    const template = parsed.get(text) ?? liquid().parse(text)
    parsed.set(text, template)
    return liquid().renderSync(template, values)
  } catch (error) {
    throw invalidTemplate(name, error as Error)
  }
}

function invalidTemplate(name: string, error: Error): ReplctlError {
  const [line, column] = (error as Partial<LiquidError>).token?.getPosition() ?? []
  const place = line === undefined ? name : `${name}, line ${line}, column ${column}`
  // Liquid repeats the place in its message, in words of its own.
  const reason = error.message.replace(/(, file:[^,]*)?, line:\d+, col:\d+$/, '')
  return new ReplctlError('template-invalid', `cannot fill ${place}`, {
    detail: `${reason.charAt(0).toUpperCase()}${reason.slice(1)}.`,
    hint: 'Correct the template.',
    cause: error,
  })
}
