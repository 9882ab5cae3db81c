import { describe, expect, it } from 'vitest'
import { loadTemplate } from '../../../src/config/load-template.ts'
import { parityFloors, readKeptSettings, sufficientSettings } from '../../../src/postgres/kept-settings.ts'
import { renderPostgresqlConf } from '../../../src/postgres/render.ts'
import { withUnit } from '../../../src/postgres/setting-value.ts'

const needed = new Map([
  ['listen_addresses', '*'],
  ['max_wal_senders', '32'],
  ['wal_level', 'replica'],
  ['cluster_name', 'shop'],
  ['max_slot_wal_keep_size', '10GB'],
])

describe('what an adopted instance keeps', () => {
  it.each<[string, Record<string, string>, Record<string, string>]>([
    ['more is as good', { max_wal_senders: '40' }, { max_wal_senders: '40' }],
    ['less is not', { max_wal_senders: '5' }, {}],
    ['the same is not worth a word', { max_wal_senders: '32', max_slot_wal_keep_size: '10240MB' }, {}],
    ['other addresses reach it too', { listen_addresses: '10.0.0.5' }, { listen_addresses: '10.0.0.5' }],
    ['loopback alone does not', { listen_addresses: 'localhost,127.0.0.1' }, {}],
    ['a name of its own goes', { cluster_name: '15/main' }, {}],
  ])('%s', (_, live, kept) => {
    expect(Object.fromEntries(sufficientSettings(live, needed, []))).toEqual(kept)
  })

  it('what the operator set in postgres.parameters counts as written', () => {
    expect([...sufficientSettings({ max_wal_senders: '40' }, needed, ['Max_WAL_Senders'])]).toEqual([])
  })

  it('is read back from the rendered file', async () => {
    const kept = new Map([
      ['max_wal_senders', '40'],
      ['listen_addresses', '10.0.0.5'],
    ])
    const text = renderPostgresqlConf(await loadTemplate('postgresql.conf'), {
      ...{ major: 15, cluster: 'shop', standbyInclude: 'replctl.standby.conf' },
      settings: new Map([...needed, ...kept, ['work_mem', '5MB']]),
      wished: ['work_mem'],
      kept: kept.keys(),
    })
    expect(readKeptSettings(text)).toEqual(Object.fromEntries(kept))
    expect(readKeptSettings('')).toEqual({})
  })
})

describe('a standby has nothing lower than its primary', () => {
  it.each<[string, Record<string, string>, Record<string, string>, Record<string, string>]>([
    ['defaults on both', { max_connections: '100' }, {}, {}],
    ['the primary has more', { max_connections: '137' }, {}, { max_connections: '137' }],
    [
      'its own file says less than the default',
      { max_connections: '100' },
      { max_connections: '20' },
      { max_connections: '100' },
    ],
    ['its own file says more', { max_connections: '137' }, { max_connections: '200' }, {}],
    ['what replctl sets is enough', { max_wal_senders: '32' }, {}, {}],
    ['what replctl sets is not enough', { max_wal_senders: '40' }, {}, { max_wal_senders: '40' }],
  ])('%s', (_, primary, own, floors) => {
    expect(Object.fromEntries(parityFloors(primary, own, needed))).toEqual(floors)
  })
})

it.each([
  ['1024', 'MB', '1024MB'],
  ['4', '8kB', '32kB'],
  ['0', 'MB', '0'],
  ['-1', 'MB', '-1'],
  ['256MB', 'MB', '256MB'],
  ['100', null, '100'],
])('%s counted in %s is %s', (text, unit, spelled) => {
  expect(withUnit(text, unit)).toBe(spelled)
})
