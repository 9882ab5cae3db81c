import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { countRows } from '../../../src/node/count-rows.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { inventoryOf } from '../some-cluster.ts'
import { createShellTransport } from './shell-transport.ts'

let home: string
let node: Node
const count = (database: string, table: string) =>
  JSON.stringify({ database, schema: 'public', table, rows: 1, changes: 0 })

/** Stands for psql: two databases, each with tables a and dropped; what it is given at its input goes into `said`. */
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'replctl-count-'))
  node = createNode(inventoryOf(['pg1']).nodes[0]!, 'shop', createShellTransport(home))
  await writeFile(
    join(home, 'psql'),
    `#!/bin/sh
case $* in *"-c SELECT datname"*) printf 'one\\ntwo\\n'; exit 0 ;; esac
for database; do :; done
input=$(cat)
printf '%s\\n' "$input" >> '${home}/said'
case $input in
*pg_class*) printf 'SELECT of a;\\nSELECT of dropped;\\n' ;;
*"SELECT of dropped"*)
  echo 'ERROR:  relation "dropped" does not exist' >&2
  case $* in *ON_ERROR_STOP=1*) exit 3 ;; esac
  printf '{"database":"%s","schema":"public","table":"a","rows":1,"changes":0}\\n' "$database" ;;
esac
`,
  )
  await chmod(join(home, 'psql'), 0o755)
})
afterEach(() => rm(home, { recursive: true, force: true }))

test('a table that is dropped while the rows are counted is left out, and no lock outlasts a count', async () => {
  const counts = await countRows(node, { socketDirectory: '/tmp', port: 5432, binDirectory: home })
  expect(counts.map((one) => JSON.stringify(one))).toEqual([count('one', 'a'), count('two', 'a')])
  const said = await node.output(
    (await import('../../../src/command.ts')).shellScript('read', `cat "${home}/said"`),
  )
  expect(said).toContain('lock_timeout')
  expect(said).not.toMatch(/BEGIN|REPEATABLE/)
})
