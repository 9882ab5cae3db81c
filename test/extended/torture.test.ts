import { expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { torture } from '../reliability/torture.ts'

/** A short run of `npm run torture`. */
describeOnHosts('the failover examiner', () => {
  it('every row whose commit was confirmed is on the primary or in a salvage, and nobody ever wrote beside it', async () => {
    const history: string[] = []
    const { verdict, complaints, rounds } = await torture({
      seed: 20,
      rounds: 4,
      only: ['none', 'kill-primary', 'power-off-primary', 'partition-primary'],
      log: (line) => history.push(line),
    })
    const told = history.join('\n')
    expect(complaints, told).toEqual([])
    expect(rounds).toBe(4)
    expect(verdict, told).toMatchObject({ isGood: true, lost: [], phantoms: [] })
    expect(verdict.confirmed).toBeGreaterThan(100)
  })
})
