import { describe, expect, it } from 'vitest'
import { ChangeList } from '../../../src/postgres/change-list.ts'
import { parseTuple, RelationChanges, tupleKey, tupleText } from '../../../src/postgres/relation-changes.ts'
import { laterXid, XidSet, xidPrecedes } from '../../../src/postgres/xid-set.ts'

const at = (block: number, offset: number) => ({ block, offset })
const key = (block: number, offset: number) => tupleKey(at(block, offset))

describe('RelationChanges', () => {
  it('follows a row that was changed several times back to where it lay at the fork', () => {
    const changes = new RelationChanges()
    changes.update(at(0, 5), at(0, 90), 1)
    changes.update(at(0, 90), at(3, 1), 2)
    changes.update(at(3, 1), at(3, 2), 3)
    expect(changes.rootOf(key(3, 2))).toBe(key(0, 5))
    expect(changes.standing).toEqual({ least: 1, most: 1 })
    expect(changes.turnOf(key(3, 2))).toBe(3)
    expect(changes.blocks).toEqual([0, 3])
  })

  it('takes a row that was inserted and changed for one new row, of the time when it was inserted', () => {
    const changes = new RelationChanges()
    changes.insert(at(1, 1), 4)
    changes.update(at(1, 1), at(1, 2), 9)
    expect(changes.rootOf(key(1, 2))).toBeUndefined()
    expect(changes.turnOf(key(1, 2))).toBe(4)
    expect(changes.standing).toEqual({ least: 1, most: 1 })
  })

  it('knows when a row of the fork gave its key up: when it was deleted, or was last changed', () => {
    const changes = new RelationChanges()
    changes.delete(at(0, 1), 700, 1)
    changes.update(at(0, 2), at(1, 1), 2)
    expect([1, 2, 3].map((offset) => changes.changedAt(key(0, offset)))).toEqual([1, 2, undefined])
    changes.update(at(1, 1), at(1, 2), 3)
    expect(changes.changedAt(key(0, 2))).toBe(3)
    expect(changes.changedAt(key(1, 2))).toBeUndefined()
  })

  it('counts as deleted for certain only what cannot be one of a COPY that the WAL does not place', () => {
    const changes = new RelationChanges()
    changes.delete(at(0, 1), 700, 1)
    changes.insertSome(3, 5, null, 2)
    changes.delete(at(3, 4), 700, 3)
    expect([changes.deleted.size, changes.certainlyDeleted]).toEqual([2, 1])
  })

  it('takes a row that was inserted and deleted again for nothing, but counts it', () => {
    const changes = new RelationChanges()
    changes.insert(at(1, 1), 1)
    changes.update(at(1, 1), at(2, 1), 2)
    changes.delete(at(2, 1), 700, 3)
    expect([changes.standing.most, changes.deleted.size, changes.vanished]).toEqual([0, 0, 1])
  })

  it('gives a row that was changed and then deleted as a deletion of what lay there at the fork', () => {
    const changes = new RelationChanges()
    changes.update(at(0, 5), at(0, 6), 1)
    changes.delete(at(0, 6), 701, 2)
    expect([...changes.deleted]).toEqual([[key(0, 5), { xid: 701, turn: 2 }]])
  })

  it('tells a place that is used again after a vacuum from what lay there before', () => {
    const changes = new RelationChanges()
    changes.delete(at(0, 5), 701, 1)
    changes.insert(at(0, 5), 2)
    expect([...changes.deleted.keys()]).toEqual([key(0, 5)])
    expect(changes.rootOf(key(0, 5))).toBeUndefined()
    changes.update(at(0, 5), at(0, 7), 3)
    changes.update(at(0, 9), at(0, 5), 4)
    expect([changes.rootOf(key(0, 7)), changes.rootOf(key(0, 5))]).toEqual([undefined, key(0, 9)])
  })

  it('takes back a speculative insertion', () => {
    const changes = new RelationChanges()
    changes.insert(at(0, 5), 1)
    changes.kill(at(0, 5))
    expect([changes.standing.most, changes.vanished, changes.deleted.size]).toEqual([0, 0, 0])
  })

  it('counts rows of a COPY whose places the WAL does not tell, also when one of them is changed later', () => {
    const changes = new RelationChanges()
    changes.insertSome(4, 3, null, 1)
    changes.insertSome(5, 2, [1, 2], 2)
    expect(changes.standing).toEqual({ least: 5, most: 5 })
    changes.delete(at(4, 9), 700, 3)
    expect(changes.standing).toEqual({ least: 4, most: 5 })
    expect([changes.isUncertain(key(4, 9)), changes.isUncertain(key(5, 1))]).toEqual([true, false])
    expect([changes.turnOf(key(4, 77)), changes.turnOf(key(5, 2))]).toEqual([1, 2])
  })

  it('writes a place as SQL has it, and reads it again, on the last block of the largest table too', () => {
    for (const one of [at(0, 1), at(12, 291), at(4_294_967_294, 1169)]) {
      expect(parseTuple(tupleText(tupleKey(one)))).toBe(tupleKey(one))
    }
    expect(tupleText(key(12, 291))).toBe('(12,291)')
  })
})

describe('ChangeList', () => {
  it('gives changes of several tables back in the order in which they were made', () => {
    const list = new ChangeList()
    for (let n = 3000; n > 0; n -= 1) {
      list.add({ table: n % 3, key: key(n, 1), isDeletion: n % 2 === 0, xid: n, bytes: n, turn: n })
    }
    const all = [...list.inOrder()]
    expect(all).toHaveLength(3000)
    expect(all[0]).toEqual({ table: 1, key: key(1, 1), isDeletion: false, xid: 1, bytes: 1, turn: 1 })
    const last = { table: 2, key: key(2000, 1), isDeletion: true, xid: 2000, bytes: 2000, turn: 2000 }
    expect(all[1999]).toEqual(last)
  })
})

describe('transaction ids', () => {
  it('are in order across the wrap-around', () => {
    expect([xidPrecedes(5, 6), xidPrecedes(6, 5), xidPrecedes(5, 5)]).toEqual([true, false, false])
    expect([xidPrecedes(4_294_967_290, 3), xidPrecedes(3, 4_294_967_290)]).toEqual([true, false])
    expect(laterXid(4_294_967_290, 3)).toBe(3)
  })

  it('fit into a set by the million', () => {
    const set = new XidSet()
    for (let xid = 4_294_000_000; xid < 4_294_967_296; xid += 1) set.add(xid)
    set.add(3)
    set.add(3)
    expect([set.size, set.has(4_294_500_000), set.has(3), set.has(4)]).toEqual([967_297, true, true, false])
  })
})
