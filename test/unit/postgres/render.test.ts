import { describe, expect, test } from 'vitest'
import { lastValues, parseConfigFile } from '../../../src/postgres/config-file.ts'
import { buildConninfo, parseConninfo } from '../../../src/postgres/conninfo.ts'
import { replicationHbaLines } from '../../../src/postgres/hba.ts'
import {
  renderPgHba,
  renderPostgresqlConf,
  renderRecoveryConf,
  renderStandbySettings,
} from '../../../src/postgres/render.ts'
import { ownedSettings } from '../../../src/postgres/settings.ts'
import { supportedMajorVersions } from '../../../src/postgres/versions.ts'
import { template } from './fixture.ts'

const read = (text: string) => Object.fromEntries(lastValues(parseConfigFile(text)))

describe('replctl.conf', () => {
  const parameters = { shared_buffers: '256MB', log_line_prefix: "%m it's \\ " }
  const values = (major: number) => ({
    major,
    cluster: 'shop',
    settings: ownedSettings({
      major,
      cluster: 'shop',
      nodeCount: 3,
      port: 5433,
      synchronousStandbyNames: 'FIRST 1 ("shop_pg2")',
      maxSlotWalKeepSize: '10GB',
      archiveCommand: "/srv/it's/push %p",
      parameters,
    }),
    wished: Object.keys(parameters),
    standbyInclude: 'replctl.standby.conf',
  })
  const render = (major: number) => renderPostgresqlConf(template('postgresql.conf'), values(major))

  test('looks like this', () => {
    expect(render(15)).toMatchInlineSnapshot(`
      "# Made by replctl for cluster "shop". Changes here are lost.
      # Settings of your own belong in postgres.parameters of replctl.yaml, for every node alike (then: replctl add-standby with the
      # name of every standby, which renders the primary's as well), or in postgresql.conf, where this file is included last: what stands here wins.

      # Connections
      listen_addresses = '*'
      password_encryption = 'scram-sha-256'
      port = '5433'

      # Write-ahead log
      max_slot_wal_keep_size = '10GB'
      wal_keep_size = '256MB'
      wal_level = 'replica'
      wal_log_hints = 'on'

      # Replication
      cluster_name = 'shop'
      hot_standby = 'on'
      max_replication_slots = '32'
      max_wal_senders = '32'
      synchronous_standby_names = 'FIRST 1 ("shop_pg2")'

      # Archiving
      archive_command = '/srv/it''s/push %p'
      archive_library = ''
      archive_mode = 'on'

      # postgres.parameters
      log_line_prefix = '%m it''s \\\\ '
      shared_buffers = '256MB'

      # Where this node receives from while it is a standby; without effect on the primary.
      include_if_exists = 'replctl.standby.conf'
      "
    `)
  })

  test.each(supportedMajorVersions)('holds every setting of PostgreSQL %i', (major) => {
    const { include_if_exists, ...settings } = read(render(major))
    expect(settings).toEqual(Object.fromEntries(values(major).settings))
    expect(include_if_exists).toBe(major < 12 ? undefined : 'replctl.standby.conf')
  })

  test('is the same whatever the order of the settings', () => {
    const { settings, ...rest } = values(15)
    const reversed = new Map([...settings].reverse())
    expect(renderPostgresqlConf(template('postgresql.conf'), { ...rest, settings: reversed })).toBe(
      render(15),
    )
  })
})

test('the lines for pg_hba.conf', () => {
  const values = {
    cluster: 'shop',
    replication: replicationHbaLines({ addresses: ['10.0.0.11', 'fd00::12'], user: 'replicator' }),
    clients: ['hostssl all all 10.0.0.0/8 scram-sha-256'],
    localUser: 'postgres',
  }
  expect(renderPgHba(template('pg_hba.conf'), values).filter((line) => !line.startsWith('#'))).toEqual([
    'local   all             postgres        peer',
    'host    replication     replicator      10.0.0.11/32            scram-sha-256',
    'host    replication     replicator      fd00::12/128            scram-sha-256',
    'hostssl all all 10.0.0.0/8 scram-sha-256',
  ])
  const without = renderPgHba(template('pg_hba.conf'), { cluster: 'shop', replication: [], clients: [] })
  expect(without.every((line) => line.startsWith('#'))).toBe(true)
})

describe('standby settings', () => {
  const conninfo = {
    host: '10.0.0.11',
    passfile: "/var/lib/it's here/passfile",
    application_name: 'shop_pg2',
  }
  const least = { major: 15, cluster: 'shop', primaryConninfo: buildConninfo(conninfo) }
  const most = {
    ...least,
    primarySlotName: 'shop_pg2',
    restoreCommand: '/srv/restore %f "%p"',
    recoveryMinApplyDelayMs: 3_600_000,
    statusInterval: '1s',
    triggerFile: '/run/promote',
  }
  const standby = (values: typeof least) => read(renderStandbySettings(template('standby.conf'), values))
  const recovery = (values: typeof least) => read(renderRecoveryConf(template('recovery.conf'), values))

  test('replctl.standby.conf with everything', () => {
    expect(standby(most)).toEqual({
      primary_conninfo: least.primaryConninfo,
      primary_slot_name: 'shop_pg2',
      recovery_target_timeline: 'latest',
      restore_command: '/srv/restore %f "%p"',
      recovery_min_apply_delay: '3600000ms',
      wal_receiver_status_interval: '1s',
      promote_trigger_file: '/run/promote',
    })
  })

  test('replctl.standby.conf with the least', () => {
    expect(standby(least)).toEqual({
      primary_conninfo: least.primaryConninfo,
      recovery_target_timeline: 'latest',
    })
    expect(standby({ ...most, recoveryMinApplyDelayMs: 0 } as typeof least)).not.toHaveProperty(
      'recovery_min_apply_delay',
    )
  })

  test('both quotings, of libpq and of the file, are undone in turn', () => {
    expect(parseConninfo(standby(least).primary_conninfo ?? '')).toEqual(conninfo)
  })

  test.each([
    [12, true],
    [15, true],
    [16, false],
    [18, false],
  ])('PostgreSQL %i gets a trigger file: %s', (major, hasTrigger) => {
    expect('promote_trigger_file' in standby({ ...most, major })).toBe(hasTrigger)
  })

  test('recovery.conf has its own names for two of them', () => {
    const { promote_trigger_file, wal_receiver_status_interval: _, ...rest } = standby(most)
    expect(recovery({ ...most, major: 11 })).toEqual({
      ...rest,
      standby_mode: 'on',
      trigger_file: promote_trigger_file,
    })
  })

  test('recovery.conf looks like this', () => {
    expect(renderRecoveryConf(template('recovery.conf'), { ...most, major: 11 })).toMatchInlineSnapshot(`
      "# Made by replctl for cluster "shop". Changes here are lost; replctl follow changes the upstream.
      # While this file is here, PostgreSQL 11 comes up as a standby; at promotion it is renamed to recovery.done.
      standby_mode = 'on'
      primary_conninfo = 'host=10.0.0.11 passfile=''/var/lib/it\\\\''s here/passfile'' application_name=shop_pg2'
      primary_slot_name = 'shop_pg2'
      recovery_target_timeline = 'latest'
      restore_command = '/srv/restore %f "%p"'
      recovery_min_apply_delay = '3600000ms'
      trigger_file = '/run/promote'
      "
    `)
  })
})
