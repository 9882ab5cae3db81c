import { describe, expect, test } from 'vitest'
import { givingWay, judgeFoundJournal, leftBefore } from '../../../src/engine/found-journal.ts'
import type { Journal } from '../../../src/engine/journal.ts'

let count = 0
const journal = (command: string, changes: Partial<Journal> = {}): Journal => ({
  ...{ version: 1, command, wish: { node: 'pg1' }, by: 'dba@control', begun: ['pg1: x'] },
  ...{ since: `2026-03-01T12:00:00.${String(count++).padStart(3, '0')}Z`, isPastPointOfNoReturn: false },
  ...changes,
})
const idOf = ({ since, by }: Journal) => `${since} ${by}`
const crossed = { isPastPointOfNoReturn: true }
const asked = (command: string) => ({ command, wish: { node: 'pg1' } })

describe('what was found unfinished', () => {
  test('is gone on with by the same command, and in the way only behind its point of no return', () => {
    const found = journal('rejoin')
    expect(judgeFoundJournal(found, asked('rejoin'))).toBe(found)
    expect(judgeFoundJournal(found, asked('follow'))).toBeNull()
    expect(() => judgeFoundJournal({ ...found, ...crossed }, asked('follow'))).toThrow(
      '"rejoin" stopped part-way',
    )
    expect(
      judgeFoundJournal({ ...found, ...crossed }, { ...asked('promote'), overridesUnfinished: true }),
    ).toBeNull()
  })

  test('is in the way also where another one that was killed lies above it', () => {
    const rejoin = journal('rejoin', crossed)
    const salvage = journal('salvage', { before: rejoin, isAside: true })
    expect(() => judgeFoundJournal(salvage, asked('follow'))).toThrow('"rejoin" stopped part-way')
    const promote = journal('promote', { before: journal('switchover', crossed) })
    expect(() => judgeFoundJournal(promote, asked('backup'))).toThrow('"switchover" stopped part-way')
  })

  test('is gone on with below one that was only aside, which ends with it', () => {
    const rejoin = journal('rejoin', { ...crossed, superseded: ['older'] })
    const backup = journal('backup', { before: rejoin, isAside: true })
    expect(judgeFoundJournal(backup, asked('rejoin'))).toEqual({
      ...rejoin,
      superseded: [idOf(backup), 'older'],
    })
    expect(judgeFoundJournal(backup, asked('backup'))).toBe(backup)
    // One that gave way to an operation of its own kind of importance does not come back by itself.
    const promote = journal('promote', { before: journal('rejoin') })
    expect(judgeFoundJournal(promote, asked('rejoin'))).toBeNull()
  })
})

describe('a new operation', () => {
  const standby = journal('add-standby')
  const backup = journal('backup', { before: standby, isAside: true })

  test('that is aside keeps what it found', () => {
    expect(givingWay(backup, true)).toEqual({ before: backup, isAside: true })
  })

  test('that is aside takes the place of what it replaces, and keeps what lies below that', () => {
    const promote = journal('promote')
    const first = journal('follow', { before: promote, isAside: true })
    const second = journal('follow', { before: first, isAside: true, superseded: [idOf(first)] })
    const isFollow = ({ command }: Journal) => command === 'follow'
    const third = journal('follow', givingWay(second, true, isFollow))
    expect(third).toMatchObject({ before: second, isAside: true, superseded: [idOf(second), idOf(first)] })
    expect(leftBefore(third)).toBe(promote)
    expect(givingWay(promote, true, isFollow)).toEqual({ before: promote, isAside: true })
    const alone = journal('follow', givingWay(journal('follow'), true, isFollow))
    expect(leftBefore(alone)).toBeUndefined()
  })

  test('ends what it found when it is done, and lets that count again where it fails, without what was aside', () => {
    expect(givingWay(standby, false)).toEqual({ before: standby, superseded: [idOf(standby)] })
    expect(givingWay(backup, false)).toEqual({ before: standby, superseded: [idOf(backup), idOf(standby)] })
    const alone = journal('backup', { isAside: true })
    expect(givingWay(alone, false)).toEqual({ superseded: [idOf(alone)] })
  })
})
