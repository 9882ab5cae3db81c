import { expect, test } from 'vitest'
import { splitDump } from '../../../src/postgres/dump-order.ts'

/** As pg_restore 15 lists it. */
const list = `;
; Archive created at 2026-11-27 13:02:09 UTC
;
216; 1259 16402 TABLE public part_c postgres
217; 1259 16403 TABLE TRIGGER postgres
3305; 0 0 COMMENT public TABLE part_c postgres
3233; 0 0 INDEX ATTACH public part_c_pkey postgres
3214; 0 0 TABLE ATTACH public part_c postgres
3221; 2606 16406 CONSTRAINT public part_c part_c_pkey postgres
3222; 1259 16407 INDEX public part_c_v_idx postgres
3234; 0 0 INDEX ATTACH public part_c_v_idx postgres
3239; 2618 16409 RULE public part_c r postgres
3240; 2620 16408 TRIGGER public part_c t postgres
3241; 2606 16410 FK CONSTRAINT public part_c part_c_up_fkey postgres
`

test('what would act on the rows of a new table comes behind them, and a partition is attached with its indexes', () => {
  const { before, after } = splitDump(list)
  expect(before.split('\n').slice(3)).toEqual([
    '216; 1259 16402 TABLE public part_c postgres',
    '217; 1259 16403 TABLE TRIGGER postgres',
    '3221; 2606 16406 CONSTRAINT public part_c part_c_pkey postgres',
    '3222; 1259 16407 INDEX public part_c_v_idx postgres',
    '',
  ])
  expect(after?.split('\n')).toEqual([
    '3214; 0 0 TABLE ATTACH public part_c postgres',
    '3305; 0 0 COMMENT public TABLE part_c postgres',
    '3233; 0 0 INDEX ATTACH public part_c_pkey postgres',
    '3234; 0 0 INDEX ATTACH public part_c_v_idx postgres',
    '3239; 2618 16409 RULE public part_c r postgres',
    '3240; 2620 16408 TRIGGER public part_c t postgres',
    '3241; 2606 16410 FK CONSTRAINT public part_c part_c_up_fkey postgres',
    '',
  ])
})

test('of a table alone nothing comes later', () => {
  const alone = list.split('\n').slice(0, 5).join('\n')
  expect(splitDump(alone)).toEqual({ before: alone, after: null })
})
