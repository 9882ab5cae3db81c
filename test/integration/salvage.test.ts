import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost } from '../kit/observe.ts'

const state = '/var/lib/postgresql/.replctl/shop'

describeOnHosts('salvage of what only an old primary has', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({ hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'root' }] })
    cluster = await TestCluster.create(hosts, {
      inventory: { postgres: { ...openToControlHost.postgres, parameters: { max_prepared_transactions: '10' } } },
    })
    await cluster.init()
    await cluster.addStandbys()
    await run('pg1', schema)
    await cluster.server('pg2').awaitCatchup(cluster.server('pg1'))
    await saveHosts(hosts)
  })
  afterAll(() => hosts?.destroy())
  beforeEach(async () => {
    await restoreHosts(hosts)
    await cluster.server('pg2').awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
  })

  const run = (node: string, statement: string, database = 'postgres') =>
    cluster.server(node).sql(statement, { database })
  const value = (node: string, query: string, database = 'postgres') =>
    cluster.server(node).sqlValue(query, { database })

  it('tries', async () => {
    await cluster.server('pg2').awaitCatchup(cluster.server('pg1'))
    await hosts.cutLink('pg1', 'pg2')
    await run('pg1', lost)
    await cluster.server('pg1').kill9()
    const promoted = await cluster.succeed(['promote', 'pg2'])
    console.log(promoted.json.result)
    await hosts.restoreLink('pg1', 'pg2')
    await run('pg2', "UPDATE item SET v = 'other' WHERE id = 9")
    const done = await cluster.replctl(['salvage', 'pg1', '-v'])
    console.log(done.stdout, done.stderr)
    const dir = (await hosts.exec('pg1', `ls -d ${state}/salvage/*`)).stdout.trim()
    for (const file of ['salvage.json', 'rows.jsonl', 'transactions.jsonl', 'salvage.sql']) {
      console.log(file, await hosts.readFile('pg1', `${dir}/${file}`))
    }
    console.log((await hosts.exec('pg1', `find ${state} -ls`)).stdout)
    expect(await value('pg2', 'SELECT 1')).toBe(1)
  })
})

const schema = `
CREATE TABLE item (id int PRIMARY KEY, v text, "Big One" text, n numeric);
INSERT INTO item SELECT g, 'v' || g, NULL, g FROM generate_series(1, 300) g;
CREATE TABLE nokey (a int, b text);
INSERT INTO nokey SELECT g, 'x' FROM generate_series(1, 5) g;
CREATE SEQUENCE sq;
`
const lost = `
BEGIN; INSERT INTO item VALUES (1001, 'a'); SAVEPOINT s; INSERT INTO item VALUES (1002, 'it''s \\ b'); RELEASE s;
UPDATE item SET v = 'upd' WHERE id = 1001; COMMIT;
UPDATE item SET v = 'changed' WHERE id = 5;
DELETE FROM item WHERE id = 6;
UPDATE item SET "Big One" = repeat('long', 3000), n = 12345678901234567890.123 WHERE id = 7;
UPDATE item SET id = 2008 WHERE id = 8;
UPDATE item SET v = 'mine' WHERE id = 9;
COPY nokey FROM PROGRAM 'seq 7 9 | sed "s/\$/\tcopied/"';
DELETE FROM nokey WHERE a = 2;
UPDATE nokey SET b = 'y' WHERE a = 3;
BEGIN; INSERT INTO item VALUES (1003, 'aborted'); ROLLBACK;
INSERT INTO item VALUES (1004, 'gone'); DELETE FROM item WHERE id = 1004;
SELECT nextval('sq');
CREATE TABLE fresh (x int PRIMARY KEY, y jsonb);
INSERT INTO fresh VALUES (1, '{"a": 1.10}'), (2, NULL);
`
