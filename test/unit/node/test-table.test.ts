import { describe, expect, it } from 'vitest'
import { type SqlSession, sqlFailed } from '../../../src/node/sql-session.ts'
import { cannotWrite, eventTriggersBehind } from '../../../src/node/test-table.ts'

describe('a primary that does not let verify write', () => {
  const session = (triggers: string | null) => {
    const asked: string[] = []
    const value = async (sql: string) => {
      asked.push(sql)
      return triggers
    }
    return { asked, sql: { value } as unknown as SqlSession }
  }
  const refused = sqlFailed('DDL is frozen until Monday', 'P0001')

  it('names the event triggers that may have refused it, with what lets verify through', async () => {
    const triggers = await eventTriggersBehind(session('freeze').sql, refused)
    const error = cannotWrite('pg1', refused, triggers)
    expect(error).toMatchObject({
      ...{ code: 'sql-failed', node: 'pg1', message: 'could not write the test row on pg1' },
      detail: expect.stringContaining('DDL is frozen until Monday'),
      hint: expect.stringMatching(
        /^If an event trigger refused it \(freeze\), have it let DDL on schema replctl/,
      ),
    })
  })

  it('says nothing of triggers where there are none', async () => {
    const { asked, sql } = session(null)
    expect(await eventTriggersBehind(sql, refused)).toBeNull()
    expect(asked).toHaveLength(1)
    expect(cannotWrite('pg1', refused).hint).toBe('See to it that the primary accepts writes.')
  })

  it.each(['25006', '53100', '57P01', '55P03', 'XX000'])(
    'does not suspect a trigger of what the server itself refuses (%s)',
    async (state) => {
      const { asked, sql } = session('freeze')
      expect(await eventTriggersBehind(sql, sqlFailed('no', state))).toBeNull()
      expect(asked).toEqual([])
    },
  )
})
