import { describe, expect, it } from 'vitest'
import { type SqlSession, sqlFailed } from '../../../../src/node/sql-session.ts'
import { LostTransactions } from '../../../../src/postgres/lost-transactions.ts'
import type { Lsn } from '../../../../src/postgres/lsn.ts'
import { RelationChanges } from '../../../../src/postgres/relation-changes.ts'
import type { SalvageTable } from '../../../../src/postgres/salvage-sql.ts'
import type { LostTable } from '../../../../src/steps/salvage/find-changes.ts'
import { saveRows } from '../../../../src/steps/salvage/save-rows.ts'

const fork = 700
const column = (name: string, type: string) => ({ name, ident: name, type, isGenerated: false })
const item: SalvageTable = {
  ident: 'public.item',
  columns: [column('id', 'integer'), column('v', 'text')],
  key: [0],
  arbiter: 'all',
}

/** A version of a row: where it lies, who made it, its key and its value. */
type Row = readonly [ctid: string, xmin: number, id: number, v: string]

/** A server with one table, which understands the queries of a salvage. */
function server(rows: readonly Row[]): SqlSession {
  const values = ([, , id, v]: Row) => [JSON.stringify({ id, v }), `md5 of ${id} ${v}`, [`'${id}'`, `'${v}'`]]
  const answer = (sql: string): unknown => {
    if (sql.includes('AS replctl_key')) {
      const keys = [...sql.matchAll(/\((\d+), '(\d+)'::integer\)/g)]
      return keys.flatMap(([, n, key]) =>
        rows
          .filter(([, , id]) => id === Number(key))
          .map((row) => [Number(n), row[1], ...values(row), row[0]]),
      )
    }
    if (sql.includes('pg_relation_size')) return { blocks: 1, hasRanges: true }
    if (sql.includes('::tid[]')) {
      const there = rows.filter(([ctid]) => sql.includes(`"${ctid}"`))
      const isSizes = !sql.includes('row_to_json')
      return there.map((row) => [row[0], row[1], ...(isSizes ? [50] : values(row))])
    }
    return rows.filter(([, xmin]) => xmin >= fork).map(([ctid, xmin]) => [ctid, xmin, 50])
  }
  return {
    isOpen: true,
    value: async (sql) => JSON.stringify(answer(sql)),
    json: async <T>(sql: string) => answer(sql) as T,
    execute: async () => undefined,
    close: async () => undefined,
  }
}

const at = (offset: number) => ({ block: 0, offset })

/** Statements and lines for a table of which `own` and `primary` hold these rows now. */
async function save(
  own: readonly Row[],
  primary: readonly Row[],
  changed: (changes: RelationChanges) => void,
  known: Partial<LostTable> = {},
) {
  const changes = new RelationChanges()
  changed(changes)
  const lost = new LostTransactions('0/1000000' as Lsn)
  lost.add({ is: 'next-xid', nextXid: fork, xid: 0, lsn: '0/F00000' as Lsn })
  const [lines, sql] = [[] as string[], [] as string[]]
  const both = { own: item, primary: item, isGone: false, hasSamePlaces: true }
  const { unsalvaged } = await saveRows({
    ...{ database: 'shop', own: server(own), primary: server(primary), lost },
    tables: [{ schema: 'public', name: 'item', ...both, changes, earlier: null, order: null, ...known }],
    rows: { write: async (text) => void lines.push(text), close: async () => undefined },
    sql: { write: async (text) => void sql.push(text), close: async () => undefined },
    isInterrupted: () => false,
    progress: () => undefined,
  })
  return {
    unsalvaged,
    states: lines.map((line) => {
      const { op, old, new: now, state } = JSON.parse(line)
      return `${op} ${old?.id ?? '-'} ${now === null ? '-' : `${now.id}=${now.v}`} ${state}`
    }),
    statements: sql
      .join('')
      .split('\n')
      .flatMap(
        (line) => /^(INSERT INTO|UPDATE ONLY|DELETE FROM ONLY) .*?(?= ON CONFLICT|;)/.exec(line)?.[0] ?? [],
      ),
  }
}

const insertInto = (id: number, v: string) =>
  `INSERT INTO public.item (id, v) OVERRIDING SYSTEM VALUE VALUES ('${id}'::integer, '${v}'::text)`
const where = (id: number, v: string) =>
  `WHERE replctl_row.id = '${id}'::integer AND md5((replctl_row.*)::text) = 'md5 of ${id} ${v}'`
const deleteOf = (id: number, v: string) => `DELETE FROM ONLY public.item AS replctl_row ${where(id, v)}`

describe('saveRows', () => {
  it.each(['new', 'v6'])('deletes a row and inserts the one that took its key: %s', async (v) => {
    const done = await save([['(0,9)', 701, 6, v]], [['(0,6)', 600, 6, 'v6']], (changes) => {
      changes.delete(at(6), 700, 1)
      changes.insert(at(9), 2)
    })
    expect(done.states).toEqual(['delete 6 - clean', `insert - 6=${v} clean`])
    expect(done.statements).toEqual([deleteOf(6, 'v6'), insertInto(6, v)])
  })

  it('inserts a row under a key that another row gave up', async () => {
    const done = await save(
      [
        ['(0,9)', 700, 2008, 'v8'],
        ['(0,10)', 701, 8, 'anew'],
      ],
      [['(0,8)', 600, 8, 'v8']],
      (changes) => {
        changes.update(at(8), at(9), 1)
        changes.insert(at(10), 2)
      },
    )
    expect(done.states).toEqual(['update 8 2008=v8 clean', 'insert - 8=anew clean'])
    expect(done.statements).toEqual([
      `UPDATE ONLY public.item AS replctl_row SET id = '2008'::integer ${where(8, 'v8')}`,
      insertInto(8, 'anew'),
    ])
  })

  it('writes a row whose key became free after it was inserted behind the change that freed it, and so on', async () => {
    const done = await save(
      [
        ['(0,12)', 703, 6, 'first'],
        ['(0,13)', 704, 7, 'second'],
      ],
      [
        ['(0,6)', 600, 6, 'v6'],
        ['(0,7)', 600, 7, 'v7'],
      ],
      (changes) => {
        changes.insert(at(9), 1)
        changes.update(at(7), at(10), 2)
        changes.delete(at(6), 702, 3)
        changes.update(at(9), at(12), 4)
        changes.insert(at(13), 5)
        changes.delete(at(10), 704, 6)
      },
    )
    expect(done.states).toEqual([
      ...['delete 6 - clean', 'insert - 6=first clean', 'delete 7 - clean', 'insert - 7=second clean'],
    ])
  })

  it('leaves it a conflict where the new primary has a row of its own under the key', async () => {
    const insert = (changes: RelationChanges) => {
      changes.delete(at(6), 700, 1)
      changes.insert(at(9), 2)
    }
    const done = await save([['(0,9)', 701, 6, 'new']], [['(0,20)', 705, 6, 'theirs']], insert)
    expect(done.states).toEqual(['delete - - conflict', 'insert - 6=new conflict'])
    expect(done.statements).toEqual([])
    const moved = await save(
      [['(0,9)', 700, 2008, 'v8']],
      [
        ['(0,8)', 600, 8, 'v8'],
        ['(0,20)', 705, 2008, 'theirs'],
      ],
      (changes) => changes.update(at(8), at(9), 1),
    )
    expect(moved.states).toEqual(['update 8 2008=v8 conflict'])
    expect(moved.statements).toEqual([])
  })

  it('knows what was deleted before its table was rewritten from what was changed', async () => {
    const earlier = new RelationChanges()
    earlier.delete(at(6), 700, 1)
    earlier.update(at(7), at(30), 2)
    const done = await save(
      [
        ['(0,1)', 701, 6, 'new'],
        ['(0,2)', 701, 7, 'changed'],
      ],
      [
        ['(0,6)', 600, 6, 'v6'],
        ['(0,7)', 600, 7, 'v7'],
      ],
      () => undefined,
      { changes: null, earlier },
    )
    expect(done.states).toEqual(['delete 6 - clean', 'insert - 6=new clean', 'update 7 7=changed clean'])
    expect(done.statements.slice(0, 2)).toEqual([deleteOf(6, 'v6'), insertInto(6, 'new')])
  })

  it('takes the rows of a table that is new in the order in which they were made', async () => {
    const order = new RelationChanges()
    order.insert(at(5), 1)
    order.insert(at(2), 2)
    const done = await save(
      [
        ['(0,1)', 700, 1, 'of a rewrite'],
        ['(0,2)', 701, 2, 'b'],
        ['(0,5)', 701, 5, 'a'],
      ],
      [],
      () => undefined,
      { primary: null, hasSamePlaces: false, changes: null, order },
    )
    expect(done.states.map((state) => state.split(' ')[2])).toEqual(['5=a', '2=b', '1=of'])
    expect(done.unsalvaged).toEqual([])
  })
})

describe('many rows, and a table that is refused', () => {
  const lost = new LostTransactions('0/1000000' as Lsn)
  lost.add({ is: 'next-xid', nextXid: fork, xid: 0, lsn: '0/F00000' as Lsn })
  const saveTables = async (own: SqlSession, tables: readonly LostTable[]) =>
    await saveRows({
      ...{ database: 'shop', own, primary: server([]), lost, tables },
      rows: { write: async () => undefined, close: async () => undefined },
      sql: { write: async () => undefined, close: async () => undefined },
      isInterrupted: () => false,
      progress: () => undefined,
    })
  const table = (name: string, changes: RelationChanges | null): LostTable => ({
    ...{ schema: 'public', name, own: { ...item, ident: `public.${name}` }, primary: item, isGone: false },
    ...{ hasSamePlaces: changes !== null, changes, earlier: null, order: null },
  })

  it('a table that the server refuses to read is told, and the rows of all others are saved', async () => {
    const some = server([['(0,1)', fork, 1, 'a']])
    const own: SqlSession = {
      ...some,
      json: async <T>(sql: string) => {
        if (sql.includes('public.locked')) throw sqlFailed('canceling statement due to lock timeout', '55P03')
        return await some.json<T>(sql)
      },
    }
    const saved = await saveTables(own, [table('locked', null), table('item', null)])
    expect(saved.unsalvaged).toEqual([
      'rows of public.locked in shop: the server refused a statement: canceling statement due to lock timeout',
    ])
    expect(saved).toMatchObject({ rows: 1, tables: [{ inserted: 0 }, { inserted: 1 }] })
  })

  it.each([
    ['a range of blocks at a time', true, 3],
    ['place by place, where the server would read all of it for each range', false, 20],
  ])('of a table that was filled anew the rows are listed %s', async (_, hasRanges, queries) => {
    const asked: string[] = []
    const own: SqlSession = {
      ...server([]),
      json: async <T>(sql: string) => {
        if (sql.includes('pg_relation_size')) return { blocks: 2500, hasRanges } as T
        asked.push(sql)
        return [] as T
      },
    }
    await saveTables(own, [table('item', null)])
    expect(asked).toHaveLength(queries)
    expect(asked.every((sql) => /ctid >= '\(\d+,0\)'/.test(sql) === hasRanges)).toBe(true)
  })
})
