import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { baseBackupArgs, commonCompression, parseBaseBackupProgress } from '../../src/postgres/base-backup.ts'
import { ensureLastInclude, removeSettings } from '../../src/postgres/config-file.ts'
import { buildConninfo } from '../../src/postgres/conninfo.ts'
import { ensureManagedBlock, replicationHbaLines } from '../../src/postgres/hba.ts'
import { initdbArgs } from '../../src/postgres/initdb.ts'
import { passfileLine } from '../../src/postgres/passfile.ts'
import {
  renderPgHba,
  renderPostgresqlConf,
  renderRecoveryConf,
  renderStandbySettings,
} from '../../src/postgres/render.ts'
import { scramVerifier } from '../../src/postgres/scram.ts'
import { judgeSettings, ownedSettings, recoverySettingNames } from '../../src/postgres/settings.ts'
import { quoteLiteral } from '../../src/postgres/sql.ts'
import { parsePostgresVersion } from '../../src/postgres/versions.ts'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { installPostgres11, PostgresServer, postgres11BinDir, TestHosts } from '../kit/index.ts'

const template = (name: string) => readFileSync(new URL(`../../templates/${name}`, import.meta.url), 'utf8')

/** Everything that can be quoted wrongly. */
const folder = "/var/lib/postgresql/it's here"
const password = 's3:cr\\et "é" 🐘'
const logLinePrefix = "%m it's \\ é "

describeOnHosts('what is rendered is what the server reads', () => {
  let hosts: TestHosts
  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }] })
    await hosts.exec('pg1', ['install', '-d', '-o', 'postgres', '-m', '0700', folder])
    await installPostgres11(hosts, 'pg1')
  })
  afterAll(() => hosts?.destroy())

  describe.each([
    { which: 'the installed version', binDir: undefined, port: 5500 },
    { which: 'PostgreSQL 11', binDir: postgres11BinDir, port: 5510 },
  ])('$which', ({ binDir, port }) => {
    let primary: PostgresServer
    let standby: PostgresServer
    let major: number
    const write = (path: string, text: string, mode = 0o600) =>
      hosts.writeFile('pg1', path, text, { owner: 'postgres', mode })
    const edit = async (path: string, change: (text: string) => string) =>
      write(path, change(await hosts.readFile('pg1', path)))
    const passfile = `${folder}/passfile ${port}`
    const conninfo = buildConninfo({
      ...{ host: '127.0.0.1', port: String(port), user: 'replicator' },
      ...{ passfile, application_name: 'shop_pg2' },
    })
    const settingsOn = (port: number) =>
      ownedSettings({
        ...{ major, cluster: 'shop', nodeCount: 2, port, maxSlotWalKeepSize: '10GB' },
        synchronousStandbyNames: 'ANY 1 ("shop_pg2", "we""ird")',
        archiveCommand: `test "it's \\ %p" && true`,
        parameters: { log_line_prefix: logLinePrefix, shared_buffers: '32MB' },
      })
    const configuration = (port: number) =>
      renderPostgresqlConf(template('postgresql.conf'), {
        ...{ major, cluster: 'shop', settings: settingsOn(port) },
        standbyInclude: 'replctl.standby.conf',
      })

    beforeAll(async () => {
      primary = new PostgresServer(hosts, 'pg1', { dataDir: `${folder}/${port}`, port, binDir })
      standby = new PostgresServer(hosts, 'pg1', { dataDir: `${folder}/${port + 1}`, port: port + 1, binDir })
      major = parsePostgresVersion((await primary.run('postgres', ['--version'])).stdout).major
      await primary.run('initdb', initdbArgs({ major, dataDirectory: primary.dataDir }))
      await write(`${primary.dataDir}/replctl.conf`, configuration(port))
      await edit(`${primary.dataDir}/postgresql.conf`, (text) => ensureLastInclude(text, 'replctl.conf'))
      const block = renderPgHba(template('pg_hba.conf'), {
        cluster: 'shop',
        localUser: 'postgres',
        replication: ['replicator', 'my, "role"', 'all', '+x', 'Grüße'].flatMap((user) =>
          replicationHbaLines({ addresses: ['127.0.0.1', '::1', 'pg3', 'localhost'], user }),
        ),
        clients: ['host all all 10.0.0.0/8 scram-sha-256'],
      })
      await edit(`${primary.dataDir}/pg_hba.conf`, (text) => ensureManagedBlock(text, block, 'shop'))
      await primary.start()
    })
    afterAll(async () => {
      for (const server of [standby, primary]) await server?.stop('immediate').catch(() => {})
    })

    it('settings and access rules are read without an error', async () => {
      expect(await primary.sql('SELECT * FROM pg_file_settings WHERE error IS NOT NULL')).toEqual([])
      expect(await primary.sql('SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL')).toEqual([])
      const users = await primary.sql(
        "SELECT DISTINCT user_name[1] AS name FROM pg_hba_file_rules WHERE database = '{replication}' AND auth_method = 'scram-sha-256'",
      )
      expect(users.map(({ name }) => name).sort()).toEqual(['+x', 'Grüße', 'all', 'my, "role"', 'replicator'])
    })

    it('every setting has its value', async () => {
      expect(await primary.sqlValue("SELECT current_setting('log_line_prefix')")).toBe(logLinePrefix)
      const rows = await primary.sql('SELECT name, current_setting(name) AS value, unit FROM pg_settings')
      const live = Object.fromEntries(rows.map(({ name, value }) => [name, value]))
      const units = Object.fromEntries(rows.map(({ name, unit }) => [name, unit]))
      const needed = settingsOn(port)
      expect(judgeSettings(live, needed, { units, wished: needed.keys() })).toEqual([])
    })

    it('text sorts by bytes and knows letters beyond ASCII', async () => {
      expect(await primary.sqlValue("SELECT upper('é') || ('a' < 'B')::text")).toBe('Éfalse')
    })

    it('a standby is cloned with the verifier and the passfile, streams, and is promoted by its trigger file', async () => {
      const verifier = scramVerifier(password, Buffer.from('sixteen bytes ok'))
      await primary.sql(`
        SET synchronous_commit = local;
        CREATE ROLE replicator LOGIN REPLICATION PASSWORD ${quoteLiteral(verifier)};
        SELECT pg_create_physical_replication_slot('shop_pg2')`)
      const entry = { host: '127.0.0.1', port, database: '*', user: 'replicator', password }
      await write(passfile, `${passfileLine(entry)}\n`)
      const client = (await primary.run('pg_basebackup', ['--version'])).stdout
      const built = await primary.sqlValue("SELECT setting FROM pg_config WHERE name = 'CONFIGURE'")
      const { stderr } = await primary.run(
        'pg_basebackup',
        baseBackupArgs({
          ...{ clientMajor: parsePostgresVersion(client).major, serverMajor: major, conninfo },
          ...{ dataDirectory: standby.dataDir, slot: 'shop_pg2', compression: commonCompression(built) },
        }),
      )
      expect(parseBaseBackupProgress(stderr.trimEnd().split('\n').at(-1) ?? '')).toEqual({ phase: 'done' })

      await write(`${standby.dataDir}/replctl.conf`, configuration(port + 1))
      const trigger = `${folder}/promote ${port}`
      const values = {
        ...{ major, cluster: 'shop', primaryConninfo: conninfo, primarySlotName: 'shop_pg2' },
        ...{ restoreCommand: `false 'it''s' %f "%p"`, recoveryMinApplyDelayMs: 5, triggerFile: trigger },
      }
      if (major < 12) {
        await write(`${standby.dataDir}/recovery.conf`, renderRecoveryConf(template('recovery.conf'), values))
      } else {
        await write(
          `${standby.dataDir}/replctl.standby.conf`,
          renderStandbySettings(template('standby.conf'), values),
        )
        await edit(`${standby.dataDir}/postgresql.auto.conf`, (text) =>
          removeSettings(text, recoverySettingNames(major)),
        )
      }
      await standby.start()
      await primary.awaitStreaming('shop_pg2')
      if (major >= 12) {
        expect(await standby.sqlValue("SELECT current_setting('primary_conninfo')")).toBe(conninfo)
      }
      await primary.sql('CREATE TABLE written AS SELECT 1 AS n')
      await standby.awaitCatchup(primary)
      expect(await standby.sqlValue('SELECT n FROM written')).toBe(1)

      await (major <= 15 ? write(trigger, '') : standby.sql('SELECT pg_promote()'))
      await standby.awaitSql('SELECT NOT pg_is_in_recovery()')
    })
  })
})
