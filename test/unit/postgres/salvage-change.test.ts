import { describe, expect, it } from 'vitest'
import { isOfFork, type RowChange, writeChange } from '../../../src/postgres/salvage-change.ts'
import {
  asComment,
  insertStatement,
  onOneLine,
  type SalvageRow,
  type SalvageTable,
} from '../../../src/postgres/salvage-sql.ts'

const column = (name: string, type: string, isGenerated = false) => ({ name, ident: name, type, isGenerated })
const table: SalvageTable = {
  ident: 'public.item',
  columns: [column('id', 'integer'), column('v', 'text'), column('twice', 'integer', true)],
  key: [0],
}
const keyless = { ...table, key: [] }
const row = (id: number, v: string | null): SalvageRow => ({
  literals: [`'${id}'`, v === null ? 'NULL' : `'${v}'`, `'${id * 2}'`],
  json: JSON.stringify({ id, v }),
  md5: `md5-of-${id}-${v}`,
})
const place = { database: 'shop', schema: 'public', table: 'item' }
const write = (change: Partial<RowChange>, of = table) =>
  writeChange(place, of, { xid: 700, now: null, wasThere: true, old: null, current: undefined, ...change })

describe('writeChange', () => {
  it('writes an insertion, without generated columns, and leaves alone what is there', () => {
    const done = write({ now: row(1, 'a'), wasThere: false, current: null })
    expect(done).toMatchObject({ op: 'insert', state: 'clean' })
    expect(done.sql).toBe(
      "INSERT INTO public.item (id, v) OVERRIDING SYSTEM VALUE VALUES ('1'::integer, 'a'::text) ON CONFLICT DO NOTHING;\n",
    )
    expect(JSON.parse(done.line)).toEqual({
      ...{ op: 'insert', database: 'shop', schema: 'public', table: 'item', xid: 700 },
      ...{ old: null, new: { id: 1, v: 'a' }, state: 'clean' },
    })
  })

  it('changes only what differs, and only where the row still is as it was', () => {
    expect(write({ now: row(1, null), old: row(1, 'a') }).sql).toBe(
      "UPDATE public.item AS replctl_row SET v = NULL::text WHERE replctl_row.id = '1'::integer AND md5((replctl_row.*)::text) = 'md5-of-1-a';\n",
    )
    expect(write({ now: row(1, 'a'), old: row(1, 'a') })).toMatchObject({
      state: 'clean',
      sql: expect.stringMatching(/^-- /),
    })
  })

  it('means one row of several that are alike where there is no key', () => {
    expect(write({ old: row(1, 'a') }, keyless).sql).toBe(
      "DELETE FROM public.item AS replctl_row WHERE ctid = (SELECT ctid FROM ONLY public.item AS replctl_row WHERE md5((replctl_row.*)::text) = 'md5-of-1-a' LIMIT 1);\n",
    )
  })

  it.each<[string, Partial<RowChange>, string]>([
    [
      'an update of a row that the new primary changed',
      { now: row(1, 'a'), current: row(1, 'b') },
      'the new primary has {"id":1,"v":"b"}',
    ],
    [
      'an update of a row that the new primary deleted',
      { now: row(1, 'a'), current: null },
      'no row of this key',
    ],
    ['a deletion of a row that the new primary changed', {}, 'changed or deleted this row'],
    [
      'an insertion of a key that the new primary gave away',
      { now: row(1, 'a'), wasThere: false, current: row(1, 'b') },
      'the new primary has',
    ],
    ['a change in a table that is gone', { now: row(1, 'a'), isTableGone: true }, 'no such table'],
  ])('comments out %s, and says why', (_, change, words) => {
    const done = write(change)
    expect(done.state).toBe('conflict')
    expect(done.sql.split('\n').filter((line) => line !== '' && !line.startsWith('-- '))).toEqual([])
    expect(done.sql).toMatch(/^-- CONFLICT: /)
    expect(done.sql).toContain(words)
  })

  it('proposes to overwrite what the new primary has', () => {
    expect(write({ now: row(1, 'a'), current: row(1, 'b') }).sql).toContain(
      "-- INSERT INTO public.item (id, v) OVERRIDING SYSTEM VALUE VALUES ('1'::integer, 'a'::text) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v;",
    )
  })

  it('knows what the new primary has just so', () => {
    for (const wasThere of [true, false]) {
      expect(write({ now: row(1, 'a'), wasThere, current: row(1, 'a') }).state).toBe('already-there')
    }
  })
})

describe('text of salvage.sql', () => {
  it('cannot leave a comment, whatever a value or a name holds', () => {
    expect(asComment('a\nDROP TABLE t;\r\nb\rc')).toBe('-- a\n-- DROP TABLE t;\n-- b\n-- c')
    const evil = { ...table, ident: '"x\ny"' }
    const done = write({ now: row(1, 'a\nb'), current: row(1, 'c') }, evil)
    expect(
      done.sql
        .trimEnd()
        .split('\n')
        .every((line) => line.startsWith('--')),
    ).toBe(true)
  })

  it('keeps a row of JSON on one line', () => {
    expect(onOneLine('{"a":{\n  "b": 1\r\n}}')).toBe('{"a":{   "b": 1 }}')
  })

  it('writes a row of a table without columns', () => {
    expect(insertStatement({ ident: 't', columns: [], key: [] }, { literals: [], json: '{}', md5: '' })).toBe(
      'INSERT INTO t DEFAULT VALUES ON CONFLICT DO NOTHING;',
    )
  })
})

describe('isOfFork', () => {
  it('takes versions of before the fork, frozen and bootstrap ones among them', () => {
    expect([699, 2, 1].map((xmin) => isOfFork(xmin, 700))).toEqual([true, true, true])
    expect([700, 701].map((xmin) => isOfFork(xmin, 700))).toEqual([false, false])
  })
})
