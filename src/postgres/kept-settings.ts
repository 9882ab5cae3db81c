import { parseConfigFile } from './config-file.ts'
import { isSameSettingValue, settingNumber } from './setting-value.ts'
import { keepSufficient, type LiveSettings, standbyParityParameters } from './settings.ts'

/** Heading of what stands in replctl.conf because the instance had it before, and it is as good as what is needed. */
export const keptHeading = 'Kept as the instance had it'

/** What PostgreSQL has where no file says anything, for the settings that a standby must not have lower. */
const parityDefaults: Readonly<Record<(typeof standbyParityParameters)[number], string>> = {
  max_connections: '100',
  max_worker_processes: '8',
  max_wal_senders: '10',
  max_prepared_transactions: '0',
  max_locks_per_transaction: '64',
}

/** Of what an instance has, the values that differ from the needed ones and are as good: they are rendered instead. */
export function sufficientSettings(
  live: LiveSettings,
  needed: ReadonlyMap<string, string>,
  wished: Iterable<string>,
): Map<string, string> {
  const kept = keepSufficient(live, needed, { wished: [...wished].map((name) => name.toLowerCase()) })
  return new Map([...kept].filter(([name, value]) => !isSameSettingValue(value, needed.get(name) ?? '')))
}

/**
 * What a standby needs so that it has nothing lower than its primary: `own` is what its own files say, `primary` what
 * the primary runs with.
 */
export function parityFloors(
  primary: LiveSettings,
  own: LiveSettings,
  needed: ReadonlyMap<string, string>,
): Map<string, string> {
  return new Map(
    standbyParityParameters.flatMap((name) => {
      const floor = primary[name]
      const has = needed.get(name) ?? own[name] ?? parityDefaults[name]
      const isLower = (settingNumber(has) ?? 0) < (settingNumber(floor ?? '0') ?? 0)
      return floor !== undefined && isLower ? [[name, floor] as const] : []
    }),
  )
}

/** What stands under that heading in a replctl.conf, up to the next blank line. */
export function readKeptSettings(text: string): Record<string, string> {
  const lines = text.split('\n')
  const begin = lines.indexOf(`# ${keptHeading}`)
  if (begin < 0) return {}
  const rest = lines.slice(begin + 1)
  const end = rest.findIndex((line) => line.trim() === '' || line.startsWith('#'))
  const section = rest.slice(0, end < 0 ? rest.length : end).join('\n')
  return Object.fromEntries(parseConfigFile(section).map(({ name, value }) => [name, value]))
}
