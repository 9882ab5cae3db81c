import { expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import type { StepContext } from '../../../src/engine/step.ts'
import { whoLeadsBeside } from '../../../src/steps/who-leads-beside.ts'

const silent = () => new Promise<string>(() => undefined)
const nodes: Readonly<Record<string, (() => Promise<string>) | null>> = {
  standby: async () => 'true',
  primary: async () => 'false',
  broken: () => Promise.reject(new Error('the session was closed')),
  closed: null,
  silent,
}
const on = (name: string) => {
  const value = nodes[name]
  return { openSql: async () => (value ? { sql: { value }, endpoint: '' } : null) }
}
const leads = (...names: string[]) => whoLeadsBeside({ on } as unknown as StepContext, names.map(nodeName))

test('who was promoted meanwhile is seen, and nobody who does not answer holds the look up for long', async () => {
  expect(await leads()).toBeNull()
  expect(await leads('standby', 'broken', 'closed')).toBeNull()
  expect(await leads('standby', 'primary', 'closed')).toBe('primary')
  const begun = performance.now()
  expect(await leads('silent', 'primary')).toBe('primary')
  expect(performance.now() - begun).toBeLessThan(2_000)
})
