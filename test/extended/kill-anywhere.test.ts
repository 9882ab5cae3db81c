import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { TestHosts } from '../kit/test-hosts.ts'
import { attempt, describeTrial, measure, type Trial } from '../reliability/kill-anywhere.ts'
import { spreadPoints } from '../reliability/kill-points.ts'
import { type Arena, makeArena, type OrdealName, ordeals } from '../reliability/ordeals.ts'

/** A sample of what `npm run kill-anywhere` does whole. */
describeOnHosts('a command that is killed, or cut off, at any point', () => {
  let hosts: TestHosts
  let arena: Arena

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [{ name: 'pg1' }, { name: 'pg2', login: 'admin' }, { name: 'pg3', login: 'root' }],
    })
    arena = await makeArena(hosts)
  })
  afterAll(() => hosts?.destroy())

  // The step after which it is aborted: something is done by then that has to be taken back, and can be.
  it.each<[OrdealName, number]>([
    ['add-standby', 26],
    ['promote', 2],
    ['switchover', 15],
    ['rejoin', 12],
  ])(
    '%s is aborted, or finished from another control host by the same command or resume: one writer, nothing lost, nothing left over',
    async (name, step) => {
      const ordeal = ordeals[name]
      await ordeal.build(arena)
      const { message } = await measure(arena, ordeal)
      const [early, late] = spreadPoints('message', message, 2, 0.7)
      const trials: Omit<Trial, 'ordeal' | 'disaster'>[] = [
        { point: { kind: 'step', n: step }, ending: 'abort', mustEnd: true },
        { point: early!, ending: 'same' },
        { point: late!, ending: 'resume' },
      ]
      for (const part of trials) {
        const trial = { ordeal, disaster: 'kill' as const, ...part }
        const { wasEarlier, complaints } = await attempt(arena, trial)
        expect({ wasEarlier, complaints }, describeTrial(trial)).toEqual({
          wasEarlier: false,
          complaints: [],
        })
      }
    },
  )
})
