import { describe, expect, it } from 'vitest'
import { compareCounts } from '../../../src/cluster/compare-counts.ts'

const count = (table: string, rows: number, changes = rows) => ({
  ...{ database: 'shop', schema: 'public', table, rows, changes },
})

describe('row counts of a drill', () => {
  it('a table that nobody writes to must be the same', () => {
    const [same, less, gone] = compareCounts(
      [count('a', 10), count('b', 10), count('c', 10)],
      [count('a', 10), count('b', 10), count('c', 10)],
      [count('a', 10), count('b', 9)],
    )
    expect([same?.ok, less?.ok, gone?.ok]).toEqual([true, false, false])
    expect([less?.restored_rows, less?.primary_rows, gone?.restored_rows]).toEqual([9, 10, null])
  })

  it('a table that is being written to may differ; both numbers are told', () => {
    const compared = compareCounts(
      [count('a', 10), count('b', 10, 10), count('c', 10)],
      [count('a', 12), count('b', 10, 14)],
      [count('a', 11), count('b', 8), count('c', 9)],
    )
    expect(compared.map(({ is_changing, ok }) => [is_changing, ok])).toEqual([
      [true, true],
      [true, true],
      [true, true],
    ])
    expect(compared[0]).toMatchObject({ restored_rows: 11, primary_rows: 10 })
  })
})
