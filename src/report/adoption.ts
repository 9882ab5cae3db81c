import type { Paint } from './paint.ts'
import { oneLine } from './plain-text.ts'
import { columns } from './table.ts'

/** One line of `result.settings` of `init primary --adopt`. */
export interface AdoptedSettingReport {
  readonly name: string
  /** Null: the instance does not know the setting. */
  readonly live: string | null
  readonly needed: string
  readonly change: 'reload' | 'restart'
  /** It counts from the next restart on, whenever that is. */
  readonly can_wait: boolean
}

export interface AdoptionReport {
  readonly settings: readonly AdoptedSettingReport[]
  readonly restart_needed: boolean
  readonly added: readonly { readonly file: string; readonly lines: readonly string[] }[]
}

/** What taking an instance over changes in it: settings, lines of its files, and whether it has to be restarted. */
export function adoptionText(
  node: string,
  wasRunning: boolean,
  report: AdoptionReport,
  paint: Paint,
): string {
  const { settings, added, restart_needed } = report
  if (settings.length === 0 && added.length === 0) {
    return `${paint.strong(node)} has everything that the cluster needs.\n`
  }
  const rows = settings.map((setting) => [
    `  ${setting.name}`,
    paint.bad(shown(setting.live)),
    '->',
    paint.good(shown(setting.needed)),
    when(setting, wasRunning, restart_needed),
  ])
  const files = added.flatMap(({ file, lines }) => [
    `\n  ${file}\n`,
    ...lines.map((line) => `  ${paint.good(`+ ${oneLine(line)}`)}\n`),
  ])
  const verdict = restart_needed
    ? paint.warn(`PostgreSQL on ${node} has to be restarted once.`)
    : wasRunning
      ? `A reload is enough: PostgreSQL on ${node} is not restarted.`
      : `PostgreSQL on ${node} is stopped: it is started with these settings.`
  const what = `Taking over ${paint.strong(node)} changes this; its data and everything else stay as they are:\n\n`
  return `${what}${columns(rows)}${files.join('')}\n${verdict}\n`
}

function shown(value: string | null): string {
  if (value === null) return '(unknown)'
  return value === '' ? "''" : oneLine(value)
}

function when({ change, can_wait }: AdoptedSettingReport, wasRunning: boolean, isRestarted: boolean): string {
  if (!wasRunning) return 'start'
  return can_wait && change === 'restart' && !isRestarted ? 'next restart' : change
}
