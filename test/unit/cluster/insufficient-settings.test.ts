import { expect, test } from 'vitest'
import {
  insufficientSettings,
  refuseInsufficient,
  refuseLowOverrides,
} from '../../../src/cluster/insufficient-settings.ts'
import { lowStandby, runningNode, setting, standbyNode, stoppedNode } from '../some-cluster.ts'

test('what a standby has is compared with what its own pg_control says that the WAL needs', () => {
  expect(insufficientSettings(lowStandby('pg2', '0/1'))).toEqual([
    { name: 'max_connections', own: 100, needed: 200 },
  ])
  const refusal = refuseInsufficient(lowStandby('pg2', '0/1'), 'cannot promote pg2')
  expect(refusal).toMatchObject({ code: 'settings-too-low', node: 'pg2' })
  expect(refusal?.detail).toContain('its max_connections is 100, and the WAL that it replays needs 200')
  expect(refusal?.hint).toContain('raise max_connections from 100 to 200')
})

test('one that was given enough meanwhile, one whose pg_control cannot be read, and a primary lack nothing', () => {
  const { control } = lowStandby('pg2', '0/1')
  const settings = { max_connections: setting('200') }
  expect(insufficientSettings(lowStandby('pg2', '0/1', { settings }))).toEqual([])
  expect(insufficientSettings({ ...lowStandby('pg2', '0/1'), control: null })).toEqual([])
  expect(
    insufficientSettings(runningNode('pg2', { settings: { max_connections: setting('100') } }, { control })),
  ).toEqual([])
  expect(refuseInsufficient(standbyNode('pg2', '0/1'), 'cannot promote pg2')).toBeNull()
})

test('PostgreSQL 11 counts walsenders among the connections: its pg_control says nothing of them', () => {
  const facts = lowStandby('pg2', '0/1', {
    settings: { max_connections: setting('200'), max_wal_senders: setting('3') },
  })
  expect(insufficientSettings({ ...facts, control: { ...facts.control!, maxWalSenders: null } })).toEqual([])
})

test('what ALTER SYSTEM left for the next start of a node, and is too low for a standby, is told before that', () => {
  const leader = runningNode('pg1', { settings: { max_connections: setting('100') } })
  const refuse = (autoConf: string) =>
    refuseLowOverrides({ ...stoppedNode('pg2', '0/5000148', { autoConf }), dataDirectory: '/data' }, leader)
  expect(refuse("max_connections = '100'\nwork_mem = '1MB'\n")).toBeNull()
  expect(refuse("max_connections = '20'\n")).toMatchObject({
    code: 'settings-too-low',
    detail:
      'Of /data/postgresql.auto.conf, which wins over every other file: max_connections is 20 there, and 100 on pg1.',
    hint: 'Take max_connections out of that file, or raise it there, then run the command again.',
    node: 'pg2',
  })
})
