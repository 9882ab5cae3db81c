import { describe, expect, it } from 'vitest'
import { isOfFork, type RowChange, writeChange } from '../../../src/postgres/salvage-change.ts'
import {
  asComment,
  databaseForPsql,
  foreignKeyCheck,
  foreignKeyText,
  insertStatement,
  onOneLine,
  type SalvageRow,
  type SalvageTable,
  triggerText,
} from '../../../src/postgres/salvage-sql.ts'

const column = (name: string, type: string, isGenerated = false) => ({ name, ident: name, type, isGenerated })
const table: SalvageTable = {
  ident: 'public.item',
  columns: [column('id', 'integer'), column('v', 'text'), column('twice', 'integer', true)],
  key: [0],
  arbiter: 'all',
}
const keyless: SalvageTable = { ...table, key: [] }
const row = (id: number, v: string | null): SalvageRow => ({
  literals: [`'${id}'`, v === null ? 'NULL' : `'${v}'`, `'${id * 2}'`],
  json: JSON.stringify({ id, v }),
  md5: `md5-of-${id}-${v}`,
})
const place = { database: 'shop', schema: 'public', table: 'item' }
const write = (change: Partial<RowChange>, of = table) =>
  writeChange(place, of, { xid: 700, now: null, wasThere: true, old: null, current: undefined, ...change })
/** What is executed, without what psql is told besides. */
const statement = (change: Partial<RowChange>, of = table) => write(change, of).sql.split('\n')[0]

describe('writeChange', () => {
  it('writes an insertion, without generated columns, and leaves alone what is there', () => {
    const done = write({ now: row(1, 'a'), wasThere: false, current: null })
    expect(done).toMatchObject({ op: 'insert', state: 'clean' })
    expect(done.sql.split('\n')).toEqual([
      "INSERT INTO public.item (id, v) OVERRIDING SYSTEM VALUE VALUES ('1'::integer, 'a'::text) ON CONFLICT DO NOTHING;",
      "\\if :ROW_COUNT \\else \\echo 'NOT DONE: insert by transaction 700, public.item, (id) = (''1''): its key is taken' \\endif",
      '',
    ])
    expect(JSON.parse(done.line)).toEqual({
      ...{ op: 'insert', database: 'shop', schema: 'public', table: 'item', xid: 700 },
      ...{ old: null, new: { id: 1, v: 'a' }, state: 'clean' },
    })
  })

  it('changes only what differs, and only where the row still is as it was', () => {
    expect(statement({ now: row(1, null), old: row(1, 'a') })).toBe(
      "UPDATE ONLY public.item AS replctl_row SET v = NULL::text WHERE replctl_row.id = '1'::integer AND md5((replctl_row.*)::text) = 'md5-of-1-a';",
    )
    expect(write({ now: row(1, 'a'), old: row(1, 'a') })).toMatchObject({
      state: 'clean',
      sql: expect.stringMatching(/^-- /),
    })
  })

  it('means one row of several that are alike where there is no key', () => {
    expect(statement({ old: row(1, 'a') }, keyless)).toBe(
      "DELETE FROM ONLY public.item AS replctl_row WHERE ctid = (SELECT ctid FROM ONLY public.item AS replctl_row WHERE md5((replctl_row.*)::text) = 'md5-of-1-a' LIMIT 1);",
    )
  })

  it.each<[string, Partial<RowChange>, SalvageTable, string]>([
    ['an update, by its key', { now: row(1, 'b'), old: row(1, 'a') }, table, "(id) = (''1'')"],
    ['a deletion, by its key', { old: row(1, 'a') }, table, "(id) = (''1'')"],
    ['a deletion without a key', { old: row(1, "a\n\\'") }, keyless, `{"id":1,"v":"a\\\\n\\\\\\\\''"}`],
  ])('has psql say it where %s finds no row as it was at the fork', (_, change, of, name) => {
    const told = write(change, of).sql.split('\n').at(-2)
    expect(told).toMatch(
      /^\\if :ROW_COUNT \\else \\echo 'NOT DONE: .* the row is not as it was at the fork' \\endif$/,
    )
    expect(told).toContain(`public.item, ${name}: `)
  })

  it('does not give a row a key that the new primary gave away, which would be an error for all that is applied with it', () => {
    const done = write({ old: row(1, 'a'), now: row(2, 'a'), current: row(2, 'theirs') })
    expect(done.state).toBe('conflict')
    expect(done.sql).toMatch(/^-- CONFLICT: .*the new primary has {"id":2,"v":"theirs"}/)
    expect(done.sql).toMatch(
      /^-- DELETE FROM ONLY public\.item .*'md5-of-1-a';\n-- INSERT .* ON CONFLICT \(id\) DO UPDATE/m,
    )
    expect(JSON.parse(done.line).current).toEqual({ id: 2, v: 'theirs' })
  })

  it('asks no deferrable constraint for a conflict, which PostgreSQL refuses', () => {
    const insert = { now: row(1, 'a'), wasThere: false, current: null }
    expect(statement(insert, { ...table, arbiter: 'key' })).toMatch(/\) ON CONFLICT \(id\) DO NOTHING;$/)
    expect(statement(insert, { ...table, arbiter: 'nothing' })).toBe(
      "INSERT INTO public.item (id, v) OVERRIDING SYSTEM VALUE SELECT '1'::integer, 'a'::text WHERE NOT EXISTS (SELECT FROM ONLY public.item AS replctl_row WHERE replctl_row.id = '1'::integer);",
    )
    expect(statement(insert, { ...keyless, arbiter: 'nothing' })).toMatch(/'a'::text\);$/)
    const overwrite = write({ now: row(1, 'a'), current: row(1, 'b') }, { ...table, arbiter: 'nothing' }).sql
    expect(overwrite).not.toContain('ON CONFLICT')
    expect(overwrite).toContain(
      "-- UPDATE ONLY public.item AS replctl_row SET v = 'a'::text WHERE replctl_row.id = '1'::integer;",
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
    expect(
      insertStatement(
        { ident: 't', columns: [], key: [], arbiter: 'all' },
        { literals: [], json: '{}', md5: '' },
      ),
    ).toBe('INSERT INTO t DEFAULT VALUES ON CONFLICT DO NOTHING;')
  })
})

describe('triggerText', () => {
  it('switches triggers on again as they were: always, or for ordinary sessions', () => {
    const on = (isAlways: boolean, kind: 'TRIGGER' | 'RULE' = 'TRIGGER') => ({
      table: 'public.item',
      trigger: { kind, ident: '"T"', isAlways },
    })
    expect(triggerText([on(true), on(false)], 'DISABLE')).toMatch(
      /^-- .*\n(ALTER TABLE public\.item DISABLE TRIGGER "T";\n){2}$/,
    )
    expect(triggerText([on(true), on(false)], 'ENABLE')).toBe(
      'ALTER TABLE public.item ENABLE ALWAYS TRIGGER "T";\nALTER TABLE public.item ENABLE TRIGGER "T";\n',
    )
    expect(triggerText([], 'ENABLE')).toBe('')
    expect(triggerText([on(false, 'RULE')], 'ENABLE')).toBe('ALTER TABLE public.item ENABLE RULE "T";\n')
  })
})

describe('databaseForPsql', () => {
  it('quotes a name, and hides one that looks like a connection string in one', () => {
    expect(databaseForPsql('My "shop"')).toBe('"My ""shop"""')
    expect(databaseForPsql(`a=b 'c' "d" \\`)).toBe(`-reuse-previous=on "dbname='a=b \\'c\\' ""d"" \\\\'"`)
    expect(databaseForPsql('postgres://x')).toBe(`-reuse-previous=on "dbname='postgres://x'"`)
  })
})

describe('foreignKeyCheck', () => {
  it('asks for a row that refers to none, by the operators of the constraint', () => {
    const key = {
      ident: '"it\'s"',
      child: 'ONLY public.limb',
      parent: 'public."Head"',
      pairs: [
        { child: 'a', parent: 'x', operator: '=' },
        { child: '"B"', parent: 'y', operator: 'OPERATOR(public.=)' },
      ],
      triggers: [{ table: 'public.limb', ident: '"RI_ConstraintTrigger_c_1"', isOfChild: true }],
    }
    const text = foreignKeyCheck(key)
    expect(text).toMatch(/^DO '.*';\n$/s)
    expect(text).toContain(
      'FROM ONLY public.limb AS replctl_child\n    WHERE replctl_child.a IS NOT NULL AND replctl_child."B" IS NOT NULL AND NOT EXISTS (SELECT FROM public."Head" AS replctl_parent WHERE replctl_parent.x = replctl_child.a AND replctl_parent.y OPERATOR(public.=) replctl_child."B") LIMIT 1;',
    )
    expect(foreignKeyText([key], 'ENABLE')).toBe(
      'ALTER TABLE public.limb ENABLE TRIGGER "RI_ConstraintTrigger_c_1";\n',
    )
    expect(foreignKeyText([], 'DISABLE')).toBe('')
  })
})

describe('isOfFork', () => {
  it('takes versions of before the fork, frozen and bootstrap ones among them', () => {
    expect([699, 2, 1].map((xmin) => isOfFork(xmin, 700))).toEqual([true, true, true])
    expect([700, 701].map((xmin) => isOfFork(xmin, 700))).toEqual([false, false])
  })
})
