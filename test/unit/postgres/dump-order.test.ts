import { expect, test } from 'vitest'
import { attachWithIndexes } from '../../../src/postgres/dump-order.ts'

/** As pg_restore 15 lists it. */
const list = `;
; Archive created at 2026-11-27 13:02:09 UTC
;
216; 1259 16402 TABLE public part_c postgres
217; 1259 16403 TABLE ATTACH part_d postgres
3214; 0 0 TABLE ATTACH public part_c postgres
3221; 2606 16406 CONSTRAINT public part_c part_c_pkey postgres
3222; 1259 16407 INDEX public part_c_v_idx postgres
3233; 0 0 INDEX ATTACH public part_c_pkey postgres
3234; 0 0 INDEX ATTACH public part_c_v_idx postgres
3240; 2620 16408 TRIGGER public part_c t postgres
`

test('a partition is attached with its indexes: the parent that is there would make them a second time', () => {
  expect(attachWithIndexes(list).split('\n').slice(3)).toEqual([
    '216; 1259 16402 TABLE public part_c postgres',
    '217; 1259 16403 TABLE ATTACH part_d postgres',
    '3221; 2606 16406 CONSTRAINT public part_c part_c_pkey postgres',
    '3222; 1259 16407 INDEX public part_c_v_idx postgres',
    '3214; 0 0 TABLE ATTACH public part_c postgres',
    '3233; 0 0 INDEX ATTACH public part_c_pkey postgres',
    '3234; 0 0 INDEX ATTACH public part_c_v_idx postgres',
    '3240; 2620 16408 TRIGGER public part_c t postgres',
    '',
  ])
})

test('an index that is attached earlier comes behind the tables, too', () => {
  const lines = list.split('\n')
  const mixed = [...lines.slice(0, 7), lines[8], lines[7], ...lines.slice(9)].join('\n')
  expect(attachWithIndexes(mixed)).toBe(attachWithIndexes(list))
})

test('without an index, or without a partition, nothing moves', () => {
  const without = (what: RegExp) =>
    list
      .split('\n')
      .filter((line) => !what.test(line))
      .join('\n')
  for (const one of [without(/INDEX|CONSTRAINT/), without(/ 0 0 TABLE ATTACH/)]) {
    expect(attachWithIndexes(one)).toBe(one)
  }
})
