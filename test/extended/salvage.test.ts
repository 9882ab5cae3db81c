import { connect } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { awaitCondition, TestCluster, TestHosts } from '../kit/index.ts'
import { fingerprint, openToControlHost } from '../kit/observe.ts'

const state = '/var/lib/postgresql/.replctl/shop'

describeOnHosts('salvage: what only a former primary has is written out', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'root' }, { name: 'pg3', login: 'admin' }],
    })
    const parameters = { max_prepared_transactions: '10' }
    cluster = await TestCluster.create(hosts, {
      inventory: {
        postgres: { ...openToControlHost.postgres, parameters },
        ssh: { connect_timeout: '20s' },
      },
    })
    await cluster.init()
    await cluster.addStandbys()
    await run('pg1', 'CREATE DATABASE "Other Shop"')
    await run('pg1', schema)
    await run('pg1', 'CREATE TABLE "it" (n int PRIMARY KEY); INSERT INTO it VALUES (1)', 'Other Shop')
    for (const name of ['pg2', 'pg3']) await cluster.server(name).awaitCatchup(cluster.server('pg1'))
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    for (const name of ['pg2', 'pg3']) {
      await cluster
        .server(name)
        .awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
    }
  })

  const run = (node: string, statement: string, database = 'postgres') =>
    cluster.server(node).sql(statement, { database, timeoutMs: 120_000 })
  const value = (node: string, query: string, database = 'postgres') =>
    cluster.server(node).sqlValue(query, { database })
  const salvage = (node: string, ...more: string[]) => cluster.replctl(['salvage', node, '--json', ...more])

  /** Nothing of what pg1 writes from now on reaches anybody. The last one named has most. */
  async function cutOff(...standbys: string[]): Promise<void> {
    for (const name of standbys) {
      const [receiver] = await hosts.pids(name, 'walreceiver')
      await hosts.kill(name, receiver!, 'SIGSTOP')
      await run(
        'pg1',
        `SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'shop_${name}'`,
      )
      const gone = `SELECT count(*) = 0 FROM pg_stat_replication WHERE application_name = 'shop_${name}'`
      await cluster.server('pg1').awaitSql(gone)
    }
  }

  /** The table alone, without what its trigger writes elsewhere. */
  async function quietTrigger(): Promise<void> {
    await run('pg1', 'ALTER TABLE item DISABLE TRIGGER noted')
    for (const name of ['pg2', 'pg3']) await cluster.server(name).awaitCatchup(cluster.server('pg1'))
  }

  async function reconnect(...standbys: string[]): Promise<void> {
    for (const name of standbys) {
      for (const receiver of await hosts.pids(name, 'walreceiver'))
        await hosts.kill(name, receiver, 'SIGCONT')
      await cluster.server(name).awaitSql('SELECT count(*) = 0 FROM pg_stat_wal_receiver')
    }
  }

  /** pg1 does what `statements` say, all alone, crashes, and pg2 leads; `theirs` is what happens there then. */
  async function loseAfter(statements: string, theirs = 'SELECT 1', database = 'postgres'): Promise<void> {
    await quietTrigger()
    await cutOff('pg3', 'pg2')
    await run('pg1', statements, database)
    await cluster.server('pg1').kill9()
    await reconnect('pg2', 'pg3')
    await cluster.succeed(['promote', 'pg2'])
    await run('pg2', theirs)
  }

  /** The folder that a salvage made on a node. */
  const folderOf = async (node: string) => (await hosts.exec(node, `ls -d ${state}/salvage/*`)).stdout.trim()
  const lines = async (node: string, name: string) =>
    (await hosts.readFile(node, `${await folderOf(node)}/${name}`))
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line))

  /** Applies a node's salvage.sql to the primary, as an operator would; gives what psql said that it did not do. */
  async function apply(from: string, to = 'pg2'): Promise<readonly string[]> {
    const text = await hosts.readFile(from, `${await folderOf(from)}/salvage.sql`)
    await hosts.writeFile(to, '/tmp/salvage.sql', text, { owner: 'postgres' })
    const { stdout } = await hosts.exec(to, 'psql -X -q -d postgres -f /tmp/salvage.sql', {
      user: 'postgres',
    })
    return stdout.split('\n').filter((line) => line.startsWith('NOT DONE'))
  }

  const digests = async (node: string): Promise<Record<string, string>> => {
    const found: Record<string, string> = {}
    for (const table of tables) {
      const isThere = await value(node, `SELECT to_regclass('${table.replaceAll("'", "''")}') IS NOT NULL`)
      const text = `SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), 'empty') FROM ${table} t`
      found[table] = isThere ? await value(node, text) : 'absent'
    }
    const objects =
      "SELECT string_agg(oid || '=' || encode(lo_get(oid), 'hex'), ' ' ORDER BY oid) FROM pg_largeobject_metadata"
    found.objects = await value(node, objects)
    found['Other Shop'] = await value(
      node,
      "SELECT string_agg(n::text, ',' ORDER BY n) FROM it",
      'Other Shop',
    )
    return found
  }

  it('salvage.sql brings the new primary to what the old one had, for every kind of row, and may be applied twice', async () => {
    // Begun before the fork, committed after it.
    await run('pg1', straddling)
    for (const name of ['pg2', 'pg3']) await cluster.server(name).awaitCatchup(cluster.server('pg1'))
    await cutOff('pg3', 'pg2')
    await run('pg1', `COMMIT PREPARED 'straddler'; ${lost}`)
    await run('pg1', 'INSERT INTO it VALUES (2), (3); DELETE FROM it WHERE n = 1', 'Other Shop')
    const wanted = await digests('pg1')
    await cluster.server('pg1').kill9()
    await reconnect('pg2', 'pg3')
    await cluster.succeed(['promote', 'pg2'])
    await run('pg2', "ROLLBACK PREPARED 'straddler'")
    expect(await digests('pg2')).not.toEqual(wanted)

    const before = await fingerprint(hosts, 'pg1')
    const planned = await salvage('pg1', '--dry-run')
    expect([planned.exitCode, planned.json.changed]).toEqual([0, false])
    expect(await fingerprint(hosts, 'pg1')).toBe(before)
    const door = new DoorWatch(hosts.addressOf('pg1'))
    const done = await salvage('pg1')
    expect([done.exitCode, done.json.changed, done.json.problems], done.stderr).toEqual([0, true, []])
    expect(await door.stop()).toEqual({ opened: 0, wasAsked: true })
    const record = done.json.result.salvage
    expect(record).toMatchObject({
      node: 'pg1',
      isComplete: true,
      conflicts: 0,
      unsalvaged: [],
      aborted: 1,
      prepared: ['left open'],
    })
    expect(record.rows).toBe((await lines('pg1', 'rows.jsonl')).length)
    expect(record.transactions).toBe((await lines('pg1', 'transactions.jsonl')).length)
    expect(
      record.schemaChanges.map(
        ({ change, kind, identity }: Record<string, string>) => `${change} ${kind} ${identity}`,
      ),
    ).toEqual(
      expect.arrayContaining([
        'created table public.fresh',
        'dropped table public.doomed',
        'created function public.added()',
        ...['created role newcomer', 'changed role postgres', 'changed database postgres'],
        ...['created schema "New One"', 'created table public.passing'],
      ]),
    )
    expect(record.sequences[0]).toMatchObject({ sequence: 'public.item_id_seq' })
    expect(record.notes.join('\n')).toMatch(/emptied .*truncated/)
    expect(record.notes.join('\n')).toContain('large objects that were deleted in postgres: 4712')

    const unlogged = record.notes.find((note: string) => note.startsWith('unlogged tables')) ?? ''
    expect(unlogged).toMatch(/public\.scratch/)
    expect(unlogged).toMatch(/public\.passing/)
    expect(await apply('pg1')).toEqual([])
    expect(
      await value(
        'pg2',
        "SELECT string_agg(tgenabled, '' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal",
      ),
    ).toBe('AO')
    const after = await digests('pg2')
    // What is only proposed in a comment is not applied.
    const applied = { emptied: '', objects: wanted.objects }
    expect({ ...after, emptied: '', objects: after.objects?.replace(/ 4712=\w+/, '') }).toEqual({
      ...wanted,
      ...applied,
    })
    const keyless = ['nokey']
    await run('pg2', 'DROP TABLE fresh, "New One".kept')
    // None of the rows is as it was at the fork any more.
    expect((await apply('pg1')).join('\n')).toMatch(
      /NOT DONE: update by transaction \d+, public\.item, \(id\) = \('5'\)/,
    )
    const again = await digests('pg2')
    for (const table of tables.filter((name) => !keyless.includes(name)))
      expect(again[table], table).toBe(after[table])

    const mode = 'find "$1" -type d ! -perm 0700 -o -type f ! -perm 0600'
    expect((await hosts.exec('pg1', ['sh', '-c', mode, 'sh', `${state}/salvage`])).stdout).toBe('')
    const segments = (await hosts.exec('pg1', `ls ${record.dir}/wal`)).stdout.trim().split('\n')
    expect(segments).toEqual(record.walSegments)
    const repeated = await salvage('pg1')
    expect([repeated.exitCode, repeated.json.changed]).toEqual([0, false])
    expect(repeated.json.result.salvage).toEqual(record)
  })

  it('marks what the new primary changed as well, and leaves that alone when the rest is applied', async () => {
    await loseAfter(
      `UPDATE item SET v = 'mine' WHERE id IN (1, 2, 3, 4);
       DELETE FROM item WHERE id = 5;
       INSERT INTO item (id, v) VALUES (900, 'mine'), (901, 'mine');
       UPDATE item SET v = 'changed twice' WHERE id = 4;
       UPDATE item SET id = 902 WHERE id = 60;
       CREATE TABLE twice (id int PRIMARY KEY, v text); INSERT INTO twice VALUES (1, 'same'), (2, 'mine'), (3, 'mine');
       UPDATE onekey SET v = 'mine' WHERE id = 1; INSERT INTO onekey VALUES (3, 'mine');
       UPDATE head SET id = 10 WHERE id = 1; UPDATE limb SET v = 'mine' WHERE id IN (1, 2);
       SELECT setval('behind', 50), setval('ahead', 500), lo_put(4711, 0, 'mine'), lo_put(4712, 0, 'mine');`,
      `UPDATE item SET v = 'theirs' WHERE id = 1;
       UPDATE item SET v = 'mine' WHERE id = 2;
       DELETE FROM item WHERE id = 3;
       UPDATE item SET v = 'theirs' WHERE id = 5;
       INSERT INTO item (id, v) VALUES (900, 'theirs'), (902, 'theirs');
       VACUUM item;
       CREATE TABLE twice (id int PRIMARY KEY, v text); INSERT INTO twice VALUES (1, 'same'), (2, 'theirs');
       ALTER TABLE onekey DROP CONSTRAINT onekey_pkey;
       SELECT setval('behind', 1000), lo_put(4712, 0, 'theirs');`,
    )
    const done = await salvage('pg1')
    expect(done.json.result.salvage).toMatchObject({ isComplete: true, unsalvaged: [] })
    const counts = { inserted: 2, updated: 5, deleted: 1, conflicts: 5, alreadyThere: 1, hasKey: true }
    expect(done.json.result.salvage.tables).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ table: 'item', ...counts }),
        expect.objectContaining({ table: 'twice', inserted: 3, conflicts: 1, alreadyThere: 1, hasKey: true }),
        expect.objectContaining({ table: 'onekey', inserted: 1, updated: 1, conflicts: 0, hasKey: false }),
        expect.objectContaining({ table: 'pg_largeobject', conflicts: 1 }),
      ]),
    )
    const sequences = done.json.result.salvage.sequences.map((one: { sequence: string }) => one.sequence)
    expect(sequences).toEqual(['public.ahead'])
    const states = (await lines('pg1', 'rows.jsonl'))
      .filter(({ table }) => table === 'item')
      .map(({ op, state: is, new: row }) => `${op} ${row?.id} ${is}`)
    expect(states.toSorted()).toEqual([
      ...['delete undefined conflict', 'insert 900 conflict', 'insert 901 clean'],
      ...[
        'update 1 conflict',
        'update 2 already-there',
        'update 3 conflict',
        'update 4 clean',
        'update 902 conflict',
      ],
    ])
    const text = await hosts.readFile('pg1', `${done.json.result.salvage.dir}/salvage.sql`)
    expect(text.match(/^-- CONFLICT: .*$/gm)).toHaveLength(7)
    expect(text).toContain('the new primary has {"id":1,"v":"theirs"')
    // The foreign key changed limb 1 with its head: that is among the changes, and not done a second time.
    expect(await apply('pg1')).toEqual([])
    expect(await value('pg2', "SELECT string_agg(t::text, ' ' ORDER BY id) FROM limb t")).toBe(
      '(1,10,mine) (2,2,mine)',
    )
    expect(await value('pg2', "SELECT string_agg(t::text, ' ' ORDER BY id) FROM twice t")).toBe(
      '(1,same) (2,theirs) (3,mine)',
    )
    expect(await value('pg2', "SELECT string_agg(t::text, ' ' ORDER BY id) FROM onekey t")).toBe(
      '(1,mine) (2,v) (3,mine)',
    )
    expect(await value('pg2', "SELECT convert_from(lo_get(4711) || lo_get(4712), 'UTF8')")).toBe(
      'mineeforetheirsd',
    )
    const rows = `SELECT string_agg(id || '=' || v, ' ' ORDER BY id) FROM item WHERE id IN (1, 2, 3, 4, 5, 60, 900, 901, 902)`
    expect(await value('pg2', rows)).toBe(
      '1=theirs 2=mine 4=changed twice 5=theirs 60=v60 900=theirs 901=mine 902=theirs',
    )
  })

  it('salvage.sql gets past foreign keys, triggers and rules in whatever order rows came to refer to each other', async () => {
    await run(
      'pg1',
      `CREATE TABLE dept (id int PRIMARY KEY, mgr int); CREATE TABLE emp (id int PRIMARY KEY, dept int REFERENCES dept);
       ALTER TABLE dept ADD FOREIGN KEY (mgr) REFERENCES emp;
       CREATE TABLE node (id int PRIMARY KEY, up int REFERENCES node);
       CREATE TABLE owner (id int PRIMARY KEY);
       CREATE TABLE owned (id int PRIMARY KEY, owner int REFERENCES owner ON DELETE CASCADE, v text);
       INSERT INTO owner VALUES (1), (2); INSERT INTO owned VALUES (1, 1, 'v'), (2, 2, 'v');
       CREATE TABLE root (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
       CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (10);
       CREATE TABLE leaf (id int PRIMARY KEY, root int REFERENCES root ON DELETE SET NULL) PARTITION BY RANGE (id);
       CREATE TABLE leaf_1 PARTITION OF leaf FOR VALUES FROM (0) TO (10);
       INSERT INTO root VALUES (1), (2); INSERT INTO leaf VALUES (1, 1), (2, 2);
       CREATE TABLE ruled (id int PRIMARY KEY, v text); CREATE TABLE rule_log (id int PRIMARY KEY);
       CREATE RULE logged AS ON INSERT TO ruled DO ALSO INSERT INTO rule_log VALUES (NEW.id);
       CREATE TABLE feeling (m mood PRIMARY KEY, v text); INSERT INTO feeling VALUES ('sad', 'v')`,
    )
    await loseAfter(
      `INSERT INTO dept VALUES (1, NULL); INSERT INTO emp VALUES (1, 1); UPDATE dept SET mgr = 1;
       INSERT INTO node VALUES (3, 2), (2, 1), (1, NULL);
       INSERT INTO owner VALUES (9); UPDATE owned SET owner = 9 WHERE id = 1; DELETE FROM owner WHERE id = 1;
       UPDATE owned SET v = 'later' WHERE id = 1; DELETE FROM owner WHERE id = 2;
       DELETE FROM root WHERE id = 1; UPDATE leaf SET root = NULL WHERE id = 2; INSERT INTO leaf VALUES (3, 2);
       INSERT INTO ruled VALUES (1, 'new');
       CREATE TABLE late (id int PRIMARY KEY, up int REFERENCES late);
       COMMENT ON CONSTRAINT late_up_fkey ON late IS 'self';
       CREATE TRIGGER noted AFTER INSERT ON late FOR EACH ROW EXECUTE FUNCTION note();
       INSERT INTO late VALUES (2, 1), (1, NULL);
       ALTER TYPE mood ADD VALUE 'calm'; INSERT INTO feeling VALUES ('calm', 'new'); UPDATE feeling SET v = 'upd' WHERE m = 'sad'`,
      "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'other'",
    )
    const done = await salvage('pg1')
    expect(done.json.result.salvage, done.stderr).toMatchObject({
      isComplete: true,
      unsalvaged: [],
      conflicts: 0,
    })
    await run('pg2', "ALTER TYPE mood ADD VALUE 'calm'")
    expect(await apply('pg1')).toEqual([])
    const rows: Record<string, string> = {
      dept: '(1,1)',
      emp: '(1,1)',
      node: '(1,) (2,1) (3,2)',
      owner: '(9)',
      owned: '(1,9,later)',
      root: '(2)',
      leaf: '(1,) (2,) (3,2)',
      ruled: '(1,new)',
      rule_log: '(1)',
      late: '(1,) (2,1)',
      feeling: '(calm,new) (sad,upd)',
      audit: '(1,INSERT2) (2,INSERT1)',
    }
    for (const [table, wanted] of Object.entries(rows)) {
      const text = `SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM ${table} t`
      expect(await value('pg2', text), table).toBe(wanted)
    }
    const off = `SELECT (SELECT count(*) FROM pg_trigger WHERE tgenabled = 'D') + (SELECT count(*) FROM pg_rewrite WHERE ev_enabled = 'D')`
    // That of item, as it was before.
    expect(Number(await value('pg2', off))).toBe(1)
    const kept = `SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conname IN ('late_up_fkey', 'emp_dept_fkey', 'dept_mgr_fkey')`
    expect(Number(await value('pg2', kept))).toBe(3)
  })

  it('salvage.sql never deletes with ON DELETE CASCADE what the new primary has since', async () => {
    await run(
      'pg1',
      `CREATE TABLE owner (id int PRIMARY KEY);
       CREATE TABLE owned (id int PRIMARY KEY, owner int REFERENCES owner ON DELETE CASCADE, v text);
       INSERT INTO owner VALUES (1), (2); INSERT INTO owned VALUES (1, 1, 'v'), (2, 1, 'v')`,
    )
    await loseAfter(
      'DELETE FROM owner WHERE id = 1; INSERT INTO owner VALUES (3)',
      "UPDATE owned SET v = 'theirs' WHERE id = 1; INSERT INTO owned VALUES (3, 1, 'theirs')",
    )
    expect((await salvage('pg1')).json.result.salvage).toMatchObject({ isComplete: true, conflicts: 1 })
    await expect(apply('pg1')).rejects.toThrow(
      /a row of public\.owned refers to one of public\.owner that is not there, against owned_owner_fkey/,
    )
    expect(await value('pg2', "SELECT string_agg(t::text, ' ' ORDER BY id) FROM owned t")).toBe(
      '(1,1,theirs) (2,1,v) (3,1,theirs)',
    )
    expect(await value('pg2', "SELECT string_agg(t::text, ' ' ORDER BY id) FROM owner t")).toBe('(1) (2)')
  })

  it('rejoin tells what was lost besides rows: schema, sequences, and a prepared transaction that the new primary has still open', async () => {
    await quietTrigger()
    await run('pg1', straddling)
    for (const name of ['pg2', 'pg3']) await cluster.server(name).awaitCatchup(cluster.server('pg1'))
    await cutOff('pg3', 'pg2')
    await run(
      'pg1',
      "COMMIT PREPARED 'straddler'; CREATE FUNCTION added() RETURNS int LANGUAGE sql AS 'SELECT 4711'; SELECT setval('ahead', 500)",
    )
    await cluster.server('pg1').kill9()
    await reconnect('pg2', 'pg3')
    await cluster.succeed(['promote', 'pg2'])
    const back = await cluster.replctl(['rejoin', 'pg1', '--json'])
    expect(back.exitCode, back.stderr).toBe(0)
    const { salvage: told } = back.json.result
    expect(told).toMatchObject({ complete: true, rows: 3, conflicts: 0, unsalvaged: [], prepared: [] })
    expect(told.tables).toEqual([expect.objectContaining({ table: 'item', inserted: 1, updated: 1 })])
    expect(told.sequences).toEqual([expect.objectContaining({ sequence: 'public.ahead', lastValue: '500' })])
    expect(told.schemaChanges).toEqual([expect.objectContaining({ identity: 'public.added()' })])
    expect(told.notes.join('\n')).toMatch(
      /'straddler' in postgres was committed here, and is still open[\s\S]*in the schema of postgres are in schema\.sql/,
    )
    expect(await hosts.readFile('pg1', `${told.dir}/schema.sql`)).toContain('SELECT 4711')
    // Its changes come by itself then.
    await run('pg2', "COMMIT PREPARED 'straddler'")
    expect(await apply('pg1')).toHaveLength(3)
  })

  it('salvage.sql makes new partitions, also of tables that have indexes there already', async () => {
    await run('pg1', 'CREATE INDEX part_by_v ON part (v)')
    await loseAfter(
      `CREATE TABLE part_c PARTITION OF part FOR VALUES IN ('c'); INSERT INTO part VALUES (20, 'c', 'new');
       CREATE TABLE "By Month" (id int, d date, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
       CREATE INDEX ON "By Month" (d);
       CREATE TABLE may PARTITION OF "By Month" FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
       INSERT INTO "By Month" VALUES (1, '2026-05-09');`,
    )
    const done = await salvage('pg1')
    expect(done.json.result.salvage).toMatchObject({ isComplete: true, unsalvaged: [], rows: 2 })
    expect(await apply('pg1')).toEqual([])
    expect(await value('pg2', "SELECT string_agg(t::text, ' ') FROM part_c t")).toBe('(20,c,new)')
    expect(await value('pg2', `SELECT string_agg(t::text, ' ') FROM "By Month" t`)).toBe('(1,2026-05-09)')
    const indexes = `SELECT bool_and(i.indisvalid) AND count(*) = 8 AND count(h.inhparent) = 4
      FROM pg_index i LEFT JOIN pg_inherits h ON h.inhrelid = i.indexrelid
      WHERE i.indrelid IN ('part'::regclass, 'part_c'::regclass, '"By Month"'::regclass, 'may'::regclass)`
    expect(await value('pg2', indexes)).toBe(true)
    expect((await hosts.exec('pg1', `ls ${await folderOf('pg1')}`)).stdout).not.toContain('dump')
  })

  it('a database in SQL_ASCII: what is not UTF-8 is saved byte for byte, with all other rows', async () => {
    const legacy = `CREATE TABLE legacy (id int PRIMARY KEY, v text, a text[]);
      INSERT INTO legacy VALUES (1, E'caf\\xe9'), (2, E'\\xe9'), (3, 'ascii');
      CREATE TABLE named (k text PRIMARY KEY, n int); INSERT INTO named VALUES (E'\\xe9a', 1)`
    await run(
      'pg1',
      "CREATE DATABASE bytes ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    await run('pg1', legacy, 'bytes')
    await loseAfter(
      `INSERT INTO legacy VALUES (4, E'na\\xefve \\\\ ''q''', ARRAY[E'\\xff"', NULL]), (5, 'gr\u00fcn', '{}');
       UPDATE legacy SET v = E'\\xc3' WHERE id = 1; DELETE FROM legacy WHERE id = 2; UPDATE named SET n = 2`,
      undefined,
      'bytes',
    )
    const done = await cluster.replctl(['rejoin', 'pg1', '--json'])
    expect([done.exitCode, done.json.problems], done.stderr).toEqual([0, []])
    expect(done.json.result.salvage).toMatchObject({ complete: true, rows: 5 })
    const rows = await lines('pg1', 'rows.jsonl')
    const values = rows.filter((row) => row.table === 'legacy').map(({ new: now, old }) => (now ?? old).v)
    expect(values.toSorted()).toEqual(['gr\u00fcn', "na\udcefve \\ 'q'", '\udcc3', '\udce9'].toSorted())
    expect(await apply('pg1')).toEqual([])
    const hex = (column: string) => `encode(convert_to(${column}::text, 'SQL_ASCII'), 'hex')`
    expect(
      await value('pg2', `SELECT string_agg(id || '=' || ${hex('v')}, ' ' ORDER BY id) FROM legacy`, 'bytes'),
    ).toBe('1=c3 3=6173636969 4=6e61ef7665205c20277127 5=6772c3bc6e')
    expect(await value('pg2', `SELECT ${hex('a')} FROM legacy WHERE id = 4`, 'bytes')).toBe(
      Buffer.from('{"\xff\\"",NULL}', 'latin1').toString('hex'),
    )
    expect(await value('pg2', `SELECT ${hex('k')} || n FROM named`, 'bytes')).toBe('e9612')
  })

  it('saves a standby that received more than the one which was promoted, what it had yet to replay included', async () => {
    await quietTrigger()
    await run('pg3', "ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
    await run('pg3', 'SELECT pg_reload_conf()')
    await cluster.server('pg3').awaitSql("SELECT current_setting('recovery_min_apply_delay') = '1h'")
    await cutOff('pg2')
    await run('pg1', "INSERT INTO item (id, v) VALUES (699, 'the delay begins')")
    // Nothing of it is to be saved, but the server has a while to replay it.
    await run('pg1', 'BEGIN; INSERT INTO nokey SELECT g FROM generate_series(1, 300000) g; ROLLBACK')
    await run(
      'pg1',
      "INSERT INTO item (id, v) VALUES (700, 'only pg3 has it'); DELETE FROM item WHERE id = 7",
    )
    const reached = await cluster.server('pg1').lsn('insert')
    await cluster.server('pg3').awaitSql(`SELECT pg_last_wal_receive_lsn() >= '${reached}'`)
    expect(await value('pg3', 'SELECT count(*)::int FROM item WHERE id IN (7, 699)')).toBe(1)
    await cluster.server('pg1').kill9()
    await reconnect('pg2')
    await cluster.succeed(['promote', 'pg2', '--allow-data-loss', '--timeout', '5s'])
    const refused = await salvage('pg3')
    expect([refused.exitCode, refused.json.problems[0].code]).toEqual([3, 'data-directory-in-use'])
    await cluster.server('pg3').stop()
    const done = await salvage('pg3')
    expect([done.exitCode, done.json.changed], done.stderr).toEqual([0, true])
    expect((await lines('pg3', 'rows.jsonl')).map(({ op, old, new: row }) => [op, old?.id, row?.id])).toEqual(
      [
        ['insert', undefined, 699],
        ['insert', undefined, 700],
        ['delete', 7, undefined],
      ],
    )
    await cluster.server('pg3').start()
    expect(await cluster.server('pg3').isInRecovery()).toBe(true)
  })

  it('gets to the same end after a kill at any moment, and leaves no instance running', async () => {
    await loseAfter("INSERT INTO item (id, v) SELECT g, 'v' FROM generate_series(1000, 3000) g")
    for (const moment of ['keeping', 'starting the old instance', 'saved']) {
      const started = cluster.startReplctl(['salvage', 'pg1', '--verbose'])
      await awaitCondition(`it is at: ${moment}`, () => started.stderr().includes(moment), {
        timeoutMs: 60_000,
      })
      started.kill()
      await started.finished
      expect(
        await hosts.exec('pg1', `ls ${state}/salvage | grep -v partial`, { check: false }),
      ).toMatchObject({ stdout: '' })
    }
    const done = await salvage('pg1', '--timeout', '90s')
    expect([done.exitCode, done.json.result?.salvage.rows], done.stderr).toEqual([0, 2001])
    expect(await hosts.pids('pg1', 'bin/postgres')).toEqual([])
    expect(
      (
        await hosts.exec('pg1', `ls -A ${state}/salvage; ls -d ${state}/isolated ${state}/wal-view`, {
          check: false,
        })
      ).stdout.trim(),
    ).toMatch(/^tl1-[\w-]+$/)
  })

  it('does not take damage in the middle of the WAL for its end, and keeps what lies behind it', async () => {
    await quietTrigger()
    await cutOff('pg3', 'pg2')
    const written: string[] = []
    for (let n = 0; n < 4; n++) {
      await run('pg1', `INSERT INTO item (id, v) VALUES (${900 + n}, 'x')`)
      written.push(await value('pg1', 'SELECT pg_walfile_name(pg_switch_wal())'))
    }
    await cluster.server('pg1').kill9()
    await reconnect('pg2', 'pg3')
    await cluster.succeed(['promote', 'pg2'])
    const { dataDir } = cluster.server('pg1')
    // Its first record and what follows; the header of the segment stays.
    const damage = `dd if=/dev/zero of=${dataDir}/pg_wal/${written[1]} bs=40 seek=1 count=400 conv=notrunc`
    await hosts.exec('pg1', damage)
    const { salvage: saved } = (await salvage('pg1')).json.result
    expect(saved.isComplete).toBe(false)
    expect(saved.unsalvaged.join(' ')).toMatch(/the WAL is damaged behind/)
    const kept = (await hosts.exec('pg1', `ls ${saved.dir}/wal`)).stdout
    for (const name of written) expect(kept).toContain(name)
  })

  it('keeps the WAL and lists the transactions of an instance that cannot be started, and says what is missing', async () => {
    await loseAfter("INSERT INTO item (id, v) VALUES (800, 'x')")
    const { dataDir } = cluster.server('pg1')
    await hosts.exec('pg1', `echo 'nonsense = here' >> ${dataDir}/postgresql.conf`)
    const done = await salvage('pg1')
    expect([done.exitCode, done.json.problems.map((one: { code: string }) => one.code)]).toEqual([
      6,
      ['salvage-incomplete'],
    ])
    expect(done.json.result.salvage).toMatchObject({ isComplete: false, transactions: 1, rows: 0 })
    expect(done.json.result.salvage.unsalvaged[0]).toMatch(/nonsense/)
    expect(await lines('pg1', 'transactions.jsonl')).toMatchObject([{ changes: 1 }])
    expect((await hosts.exec('pg1', `ls ${done.json.result.salvage.dir}/wal`)).stdout).toMatch(/^0000000100/)
    // Once it can be started, the same command gets the rest.
    await hosts.exec('pg1', `sed -i '/^nonsense/d' ${dataDir}/postgresql.conf`)
    const mended = await salvage('pg1')
    expect(mended.json.result.salvage).toMatchObject({ isComplete: true, rows: 1 })
  })

  it('gives up an instance whose WAL ends before it is consistent; with --allow-data-loss its node comes back, and the old directory is kept', async () => {
    await loseAfter("INSERT INTO item (id, v) VALUES (801, 'x')")
    const { dataDir } = cluster.server('pg1')
    // As a base backup that never ended leaves it: recovery waits for a record that is not there.
    await hosts.exec(
      'pg1',
      `PATH=/usr/lib/postgresql/15/bin:$PATH; of() { pg_controldata ${dataDir} | sed -n "s/^Latest checkpoint's $1: *//p"; }
       printf '%s\n' "START WAL LOCATION: $(of 'REDO location') (file $(of 'REDO WAL file'))" \
         "CHECKPOINT LOCATION: $(pg_controldata ${dataDir} | sed -n 's/^Latest checkpoint location: *//p')" \
         'BACKUP METHOD: streamed' 'BACKUP FROM: primary' 'START TIME: 2026-01-01 00:00:00 UTC' 'LABEL: x' \
         'START TIMELINE: 1' > ${dataDir}/backup_label`,
      { user: 'postgres' },
    )
    const done = await salvage('pg1')
    expect(done.exitCode, done.stderr).toBe(6)
    expect(done.json.problems).toMatchObject([{ code: 'salvage-incomplete', severity: 'error' }])
    expect(done.json.result.salvage).toMatchObject({ isComplete: false, transactions: 1, rows: 0 })
    expect(done.json.result.salvage.unsalvaged[0]).toMatch(/ends before its data is consistent/)
    const back = await cluster.replctl(['rejoin', 'pg1', '--reclone', '--allow-data-loss', '--json'])
    expect(back.exitCode, back.stderr).toBe(0)
    expect(back.json.problems.map((one: { code: string }) => one.code).toSorted()).toEqual([
      ...['data-directory-kept', 'salvage-incomplete'],
    ])
    const aside = await hosts.exec('pg1', `ls -d ${dataDir}.replctl-before-*/PG_VERSION`)
    expect(aside.stdout).toMatch(/PG_VERSION/)
  })
})

/** Knocks at a server's port all the time. */
class DoorWatch {
  #isOver = false
  #opened = 0
  #asked = 0
  readonly #loop: Promise<void>
  constructor(host: string) {
    this.#loop = this.#knock(host)
  }

  async stop(): Promise<{ opened: number; wasAsked: boolean }> {
    this.#isOver = true
    await this.#loop
    return { opened: this.#opened, wasAsked: this.#asked > 5 }
  }

  async #knock(host: string): Promise<void> {
    while (!this.#isOver) {
      const isOpen = await new Promise<boolean>((resolve) => {
        const socket = connect({ host, port: 5432, timeout: 1000 })
        socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
        socket.once('timeout', () => resolve(false)).once('close', () => socket.destroy())
      })
      this.#asked += 1
      if (isOpen) this.#opened += 1
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

const tables = [
  ...[
    'item',
    'nokey',
    '"Weird ""Name"""."Tab le"',
    'kinds',
    'part',
    'parent',
    'child',
    'wide',
    'audit',
    'emptied',
  ],
  ...['fresh', '"New One".kept', 'redone', 'lazy', 'ranked', 'tree'],
]

const schema = `
CREATE TABLE item (id serial PRIMARY KEY, v text, "Big One" text, gone int, n numeric);
INSERT INTO item (v, n) SELECT 'v' || g, g FROM generate_series(1, 300) g;
ALTER TABLE item DROP COLUMN gone;
SELECT setval('item_id_seq', 500);
CREATE TABLE nokey (a int, b text);
INSERT INTO nokey SELECT g % 3, 'x' FROM generate_series(1, 9) g;
CREATE SCHEMA "Weird ""Name""";
CREATE TABLE "Weird ""Name"""."Tab le" ("Key'1" text, "k 2" date, "select" int, PRIMARY KEY ("Key'1", "k 2"));
INSERT INTO "Weird ""Name"""."Tab le" VALUES ('a', '2020-01-01', 1), (E'b\\\\''"', 'infinity', 2);
CREATE TYPE mood AS ENUM ('sad', 'so so', 'ha''ppy');
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE kinds (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, doubled int GENERATED ALWAYS AS (i * 2) STORED, i int,
  f float8, r real, n numeric, t timestamptz, s timestamp, d interval, b bytea, j json, jb jsonb, a text[], m int[], e mood,
  p pair, o positive, c char(5), bo boolean, u uuid, ip inet, x xml, bits bit varying, rg int4range, mo money, ch "char", na name);
CREATE TABLE part (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE part_eu PARTITION OF part FOR VALUES IN ('eu');
CREATE TABLE part_us PARTITION OF part FOR VALUES IN ('us');
INSERT INTO part SELECT g, 'eu', 'v' FROM generate_series(1, 10) g;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2);
CREATE TABLE wide (id int PRIMARY KEY, big text);
ALTER TABLE wide ALTER big SET STORAGE EXTERNAL;
INSERT INTO wide SELECT g, (SELECT string_agg(md5(g::text || h::text), '') FROM generate_series(1, 200) h) FROM generate_series(1, 5) g;
CREATE TABLE audit (id bigserial PRIMARY KEY, what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit (what) VALUES (TG_OP || NEW.id); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION note();
CREATE TABLE emptied (id int PRIMARY KEY); INSERT INTO emptied VALUES (1), (2);
CREATE TABLE doomed (id int);
CREATE TABLE redone (id int PRIMARY KEY, v text); INSERT INTO redone SELECT g, 'v' FROM generate_series(1, 5) g;
CREATE UNLOGGED TABLE scratch (id serial PRIMARY KEY, v text); INSERT INTO scratch (v) VALUES ('x');
CREATE TABLE lazy (id int PRIMARY KEY DEFERRABLE, v text); INSERT INTO lazy VALUES (1, 'v'), (2, 'v'), (3, 'v');
CREATE TABLE ranked (id int PRIMARY KEY, pos int UNIQUE DEFERRABLE, r int4range, EXCLUDE USING gist (r WITH &&) DEFERRABLE);
INSERT INTO ranked VALUES (1, 1, '[1,2)'), (2, 2, '[2,3)');
CREATE TRIGGER loud AFTER UPDATE ON lazy FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE lazy ENABLE ALWAYS TRIGGER loud;
CREATE TABLE onekey (id int PRIMARY KEY, v text); INSERT INTO onekey VALUES (1, 'v'), (2, 'v');
CREATE TABLE head (id int PRIMARY KEY); INSERT INTO head VALUES (1), (2);
CREATE TABLE limb (id int PRIMARY KEY, head int REFERENCES head ON UPDATE CASCADE, v text);
INSERT INTO limb VALUES (1, 1, 'v'), (2, 2, 'v');
CREATE SEQUENCE behind; CREATE SEQUENCE ahead;
CREATE EXTENSION ltree; CREATE EXTENSION citext;
CREATE TABLE tree (path ltree, name citext, v text, PRIMARY KEY (path, name));
INSERT INTO tree VALUES ('a.b', 'X', 'v'), ('a.c', 'y', 'v');
SELECT lo_from_bytea(4711, 'of before'), lo_from_bytea(4712, 'deleted');
`

const straddling = `
BEGIN; INSERT INTO item (id, v) VALUES (650, 'straddles'); UPDATE item SET v = 'straddled' WHERE id = 50;
DELETE FROM item WHERE id = 51; PREPARE TRANSACTION 'straddler';
`

const lost = `
BEGIN; INSERT INTO item (id, v) VALUES (1001, 'a'); SAVEPOINT s; INSERT INTO item (id, v, n) VALUES (1002, E'it''s \\\\ b\\nnext line', 'NaN'); RELEASE s;
UPDATE item SET v = 'upd' WHERE id = 1001; COMMIT;
UPDATE item SET v = 'changed', n = 12345678901234567890.12345678900 WHERE id = 5;
UPDATE item SET v = 'and again' WHERE id = 5;
DELETE FROM item WHERE id = 6;
UPDATE item SET id = 2008 WHERE id = 8; INSERT INTO item (id, v) VALUES (8, 'anew');
DELETE FROM item WHERE id = 30; INSERT INTO item (id, v) VALUES (30, 'again');
DELETE FROM item WHERE id = 31; INSERT INTO item (id, v, n) VALUES (31, 'v31', 31);
INSERT INTO item (id, v) VALUES (3000, 'late'); DELETE FROM item WHERE id = 32; UPDATE item SET id = 32 WHERE id = 3000;
DELETE FROM redone WHERE id = 1; INSERT INTO redone VALUES (1, 'again'); UPDATE redone SET v = 'upd' WHERE id = 2; VACUUM FULL redone;
INSERT INTO lazy VALUES (4, 'new'); UPDATE lazy SET v = E'it''s \\ "upd"' WHERE id = 1; DELETE FROM lazy WHERE id = 3;
INSERT INTO ranked VALUES (3, 3, '[3,4)'); UPDATE ranked SET pos = 3 - pos WHERE id < 3;
INSERT INTO scratch (v) VALUES ('lost'); TRUNCATE scratch; CREATE UNLOGGED TABLE passing (id serial PRIMARY KEY);
CREATE SCHEMA "New One"; CREATE TABLE "New One".kept (id int PRIMARY KEY); INSERT INTO "New One".kept VALUES (1); VACUUM FULL "New One".kept;
INSERT INTO "New One".kept VALUES (2), (3); DELETE FROM "New One".kept WHERE id IN (1, 3);
CREATE ROLE newcomer; ALTER ROLE postgres SET work_mem = '8MB'; ALTER DATABASE postgres SET work_mem = '9MB';
SELECT lo_put(4711, 3, 'after');
UPDATE item SET "Big One" = repeat('long', 5000) WHERE id = 9;
BEGIN; INSERT INTO item (id, v) VALUES (1003, 'rolled back'); ROLLBACK;
BEGIN; DELETE FROM item WHERE id = 20; PREPARE TRANSACTION 'left open';
BEGIN; INSERT INTO item (id, v) VALUES (1004, 'prepared'); PREPARE TRANSACTION 'done';
COMMIT PREPARED 'done';
INSERT INTO item (id, v) VALUES (1005, 'gone'); DELETE FROM item WHERE id = 1005; VACUUM item;
INSERT INTO item (id, v) VALUES (1006, 'in a place of before');
INSERT INTO item (v) VALUES ('by the sequence');
INSERT INTO item (id, v) VALUES (12, 'z') ON CONFLICT (id) DO UPDATE SET v = 'upsert';
INSERT INTO tree VALUES ('a.d', 'Z', 'new'); UPDATE tree SET v = 'upd' WHERE path = 'a.b'; DELETE FROM tree WHERE path = 'a.c';
COPY nokey FROM PROGRAM 'printf "7\\tcopied\\n8\\tcopied\\n9\\tcopied\\n"';
DELETE FROM nokey WHERE ctid = (SELECT min(ctid) FROM nokey WHERE a = 2);
UPDATE nokey SET b = 'y' WHERE ctid = (SELECT min(ctid) FROM nokey WHERE a = 1);
INSERT INTO "Weird ""Name"""."Tab le" VALUES ('c', '-infinity', NULL);
UPDATE "Weird ""Name"""."Tab le" SET "select" = 7 WHERE "k 2" = 'infinity';
DELETE FROM "Weird ""Name"""."Tab le" WHERE "Key'1" = 'a';
INSERT INTO kinds (i, f, r, n, t, s, d, b, j, jb, a, m, e, p, o, c, bo, u, ip, x, bits, rg, mo, ch, na) VALUES
 (1, 0.1, 1e-30, 1.10, '2024-02-29 12:34:56.789012+05', 'infinity', '1 mon -2 days 03:04:05.000006', '\\x00ff', E'{"a":\\n 1.10}', '{"z": 1e3, "a": null}', ARRAY['q"', NULL, 'a,b', E'\\\\'], '[2:3][1:2]={{1,2},{3,4}}',
  'ha''ppy', ROW(NULL, 'x,"y'), 5, 'ab', true, '0b3b4d3a-0000-4000-8000-000000000001', '10.0.0.1/8', '<a>&amp;</a>', B'101', '[1,5)', '1234.50', 'x', 'a name'),
 (2, 'NaN', '-Infinity', 'NaN', '-infinity', '0044-03-15 00:00:00 BC', '-1 year', '', '[]', '"x"', '{}', NULL, 'sad', ROW(NULL, NULL), 1, '', false, NULL, '::1', NULL, B'', 'empty', NULL, '', '');
INSERT INTO part VALUES (11, 'us', 'new'); UPDATE part SET region = 'us' WHERE id = 3; DELETE FROM part WHERE id = 4;
DELETE FROM child WHERE id = 1; DELETE FROM parent WHERE id = 1; INSERT INTO parent VALUES (3); INSERT INTO child VALUES (3, 3);
UPDATE parent SET id = 33 WHERE id = 3 AND false; UPDATE child SET parent = 3 WHERE id = 2; DELETE FROM parent WHERE id = 2;
UPDATE wide SET big = big || 'x' WHERE id = 1; DELETE FROM wide WHERE id = 2; UPDATE wide SET id = 30 WHERE id = 3;
CREATE TABLE fresh (x int PRIMARY KEY, y jsonb DEFAULT '{}'); INSERT INTO fresh VALUES (1, '{"a": 1.10}'), (2, NULL);
CREATE FUNCTION added() RETURNS int LANGUAGE sql AS 'SELECT 1';
DROP TABLE doomed;
TRUNCATE emptied; INSERT INTO emptied VALUES (9);
SELECT lo_from_bytea(4800, repeat('large', 2000)::bytea), lo_unlink(4712);
`
