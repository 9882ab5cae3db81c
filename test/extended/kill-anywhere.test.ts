import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { TestHosts } from '../kit/test-hosts.ts'
import { attempt, describeTrial, type Ending, endings, measure } from '../reliability/kill-anywhere.ts'
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

  it.each<OrdealName>(['add-standby', 'promote', 'switchover', 'rejoin'])(
    '%s is finished from another control host by the same command, resume or abort: one writer, nothing lost, nothing left over',
    async (name) => {
      const ordeal = ordeals[name]
      await ordeal.build(arena)
      const { message } = await measure(arena, ordeal)
      const points = spreadPoints('message', message, 3, 0.5)
      for (const [index, point] of points.entries()) {
        const trial = { ordeal, disaster: 'kill' as const, point, ending: endings[index] as Ending }
        expect((await attempt(arena, trial)).complaints, describeTrial(trial)).toEqual([])
      }
    },
  )
})
