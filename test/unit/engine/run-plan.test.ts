import { describe, expect, test } from 'vitest'
import { nodeName } from '../../../src/cluster/names.ts'
import type { ClusterLock } from '../../../src/engine/cluster-lock.ts'
import type { EngineEvent } from '../../../src/engine/events.ts'
import type { Journal } from '../../../src/engine/journal.ts'
import type { Outcome } from '../../../src/engine/run-outcome.ts'
import { withoutState } from '../../../src/engine/run-outcome.ts'
import { planSteps, planUndo, type RunOptions, runSteps, undoSteps } from '../../../src/engine/run-plan.ts'
import {
  asOne,
  inOrder,
  type Plan,
  pending,
  refused,
  type Step,
  satisfied,
  stepsOf,
  together,
  unknownUntil,
} from '../../../src/engine/step.ts'
import { type ErrorCode, ReplctlError } from '../../../src/errors.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

/** What the steps and the lock did, in order: `check a`, `apply a`, `undo a`, `journal a b`, `clear`, `confirm pg1`. */
type Log = string[]

interface Fake extends Partial<Omit<Step, 'check' | 'apply' | 'undo' | 'verify'>> {
  readonly isDone?: boolean
  /** Thrown by apply. */
  readonly fails?: ErrorCode
  /** Apply comes back and nothing has changed. */
  readonly isVain?: boolean
  readonly refuses?: ErrorCode
  readonly undoFails?: true | 'cannot-abort'
  readonly hasUndo?: boolean
  readonly onApply?: (log: Log) => Promise<void> | void
}

/** A step whose state is one boolean. */
function fake(log: Log, title: string, given: Fake = {}): Step {
  const { isDone = false, fails, isVain, refuses, undoFails, hasUndo = true, onApply, ...rest } = given
  let isThere = isDone
  return {
    title,
    node: nodeName('pg1'),
    check: async () => {
      log.push(`check ${title}`)
      if (refuses !== undefined) return refused(new ReplctlError(refuses, `${title} is refused`))
      return isThere ? satisfied(`${title} is there`) : pending(`${title} is missing`)
    },
    apply: async () => {
      log.push(`apply ${title}`)
      await onApply?.(log)
      if (fails !== undefined) throw new ReplctlError(fails, `${title} failed`)
      isThere = isVain !== true
    },
    ...(hasUndo && {
      undo: async () => {
        log.push(`undo ${title}`)
        const code = undoFails === true ? 'connection-lost' : undoFails
        if (code !== undefined) throw new ReplctlError(code, `${title} stays`)
        isThere = false
      },
    }),
    ...rest,
  }
}

function fakeLock(log: Log, changes: Partial<ClusterLock> = {}): ClusterLock {
  const confirm = async (node: string) => void log.push(`confirm ${node}`)
  return {
    isHeld: true,
    foundJournals: [],
    surveyOf: () => undefined,
    confirm,
    prove: async () => void log.push('prove'),
    writeJournal: async (text, provenOn = []) => {
      for (const node of provenOn) await (changes.confirm ?? confirm)(node)
      const { begun, isPastPointOfNoReturn } = JSON.parse(text) as Journal
      const titles = begun.map((key) => key.replace(/^pg\d: /, ''))
      log.push(`journal ${titles.join(' ')}${isPastPointOfNoReturn ? ' !' : ''}`)
    },
    prepareJournal: async () => undefined,
    clearJournal: async () => void log.push('clear'),
    replaceJournal: async (text) => void log.push(`replace ${text}`),
    release: async () => undefined,
    ...changes,
  }
}

const journal: Journal = {
  version: 1,
  command: 'add-standby',
  wish: { nodes: ['pg2'] },
  by: 'dba@control',
  since: '2026-03-01T12:00:00.000Z',
  isPastPointOfNoReturn: false,
  begun: [],
}

interface Ran extends Outcome {
  readonly log: Log
  readonly events: readonly EngineEvent[]
  /** e.g. `a applied`. */
  readonly states: readonly string[]
}

function optionsFor(events: EngineEvent[], signal?: AbortSignal): RunOptions & { nodes: Map<never, Node> } {
  const nodes = inventoryOf(['pg1', 'pg2']).nodes.map((settings) => {
    const node = createNode(settings, 'shop', createRecordingTransport())
    return [settings.name as never, node] as const
  })
  return {
    nodes: new Map(nodes),
    timeoutMs: 1_000,
    signal: signal ?? new AbortController().signal,
    listener: (event) => events.push(event),
  }
}

interface Setting {
  readonly lock?: Partial<ClusterLock>
  readonly journal?: Partial<Journal>
  readonly signal?: AbortSignal
  readonly how?: 'run' | 'plan' | 'undo'
}

async function run(make: (log: Log) => Plan, setting: Setting = {}): Promise<Ran> {
  const log: Log = []
  const events: EngineEvent[] = []
  const options = optionsFor(events, setting.signal)
  const given = { ...journal, ...setting.journal }
  const plan = make(log)
  const lock = fakeLock(log, setting.lock)
  const outcome = await (setting.how === 'plan'
    ? planSteps(plan, options)
    : setting.how === 'undo'
      ? undoSteps(plan, options, lock, given, [nodeName('pg9')])
      : runSteps(plan, options, lock, given))
  return { ...outcome, log, events, states: outcome.steps.map((step) => `${step.title} ${step.state}`) }
}

/** Only what changed something, in order. */
const changes = ({ log }: Ran) => log.filter((line) => /^(apply|undo)/.test(line))

describe('a run without trouble', () => {
  test('applies what is pending, proves it by checking again, and clears the journal at the end', async () => {
    const ran = await run((log) => inOrder([fake(log, 'a'), fake(log, 'b')]))
    expect(ran.log).toEqual([
      ...['check a', 'journal a', 'apply a', 'check a'],
      ...['check b', 'journal a b', 'apply b', 'check b'],
      'clear',
    ])
    expect(ran).toMatchObject({
      exitCode: 0,
      hasChanged: true,
      error: null,
      states: ['a applied', 'b applied'],
    })
  })

  test('applies nothing that is satisfied, and leaves the journal of another operation where it lies', async () => {
    const ran = await run((log) =>
      inOrder([fake(log, 'a', { isDone: true }), fake(log, 'b', { isDone: true })]),
    )
    expect(ran.log).toEqual(['check a', 'check b'])
    expect(ran).toMatchObject({ exitCode: 0, hasChanged: false, states: ['a satisfied', 'b satisfied'] })
  })

  test('a step with a proof of its own is not checked again', async () => {
    const ran = await run((log) => ({
      ...fake(log, 'a'),
      verify: async () => void log.push('verify a'),
    }))
    expect(ran.log).toEqual(['check a', 'journal a', 'apply a', 'verify a', 'clear'])
    expect(ran.exitCode).toBe(0)
  })

  test('reports each step as it starts and ends, with its number, node and title', async () => {
    const ran = await run((log) =>
      inOrder([fake(log, 'a'), fake(log, 'b', { node: nodeName('pg2'), isDone: true })]),
    )
    expect(ran.steps).toMatchObject([
      { n: 1, node: 'pg1', title: 'a', state: 'applied' },
      { n: 2, node: 'pg2', title: 'b', state: 'satisfied' },
    ])
    expect(ran.events.map((event) => event.type)).toEqual(
      Array(2).fill(['step-started', 'step-finished']).flat(),
    )
    expect(ran.events.at(-1)).toMatchObject({ n: 2, because: 'b is there' })
  })

  test('gives a step its own node, other nodes, the timeout, and a way to tell of progress and warnings', async () => {
    const ran = await run((log) => ({
      ...fake(log, 'a'),
      apply: async (ctx) => {
        log.push(`${ctx.node.name} ${ctx.on(nodeName('pg2')).name} ${ctx.timeoutMs} ${ctx.isDryRun}`)
        expect(() => ctx.on(nodeName('pg9'))).toThrow(RangeError)
        ctx.progress({ message: 'half' })
        ctx.warn(new ReplctlError('clock-skew', 'late'))
      },
      verify: async () => undefined,
    }))
    expect(ran.log).toContain('pg1 pg2 1000 false')
    expect(ran.events).toContainEqual({
      type: 'step-progress',
      n: 1,
      node: 'pg1',
      title: 'a',
      message: 'half',
    })
    expect(ran.events.find((event) => event.type === 'warning')).toMatchObject({
      error: { code: 'clock-skew' },
    })
  })

  test('forgets what was surveyed before a change was done', async () => {
    const events: EngineEvent[] = []
    const options = optionsFor(events)
    const node = [...options.nodes.values()][0]!
    const remember = () => {
      const facts = Promise.reject(new Error('old'))
      facts.catch(() => undefined)
      node.lastSurvey = { at: 0, activity: 0, facts }
    }
    remember()
    const log: Log = []
    const step = fake(log, 'a', { onApply: remember })
    const seen: unknown[] = []
    const check: Step['check'] = (ctx) => {
      seen.push(ctx.node.lastSurvey)
      return step.check(ctx)
    }
    expect(await runSteps({ ...step, check }, options, fakeLock(log), journal)).toMatchObject({ exitCode: 0 })
    expect(seen).toEqual([expect.anything(), null])
  })
})

describe('a failure before the point of no return', () => {
  test('refused before anything was applied: the error’s own exit code, nothing changed, nothing written', async () => {
    for (const [code, exitCode] of [
      ['standby-ahead', 3],
      ['host-unreachable', 4],
    ] as const) {
      const ran = await run((log) =>
        inOrder([fake(log, 'a', { isDone: true }), fake(log, 'b', { refuses: code }), fake(log, 'c')]),
      )
      expect(ran).toMatchObject({ exitCode, hasChanged: false, states: ['a satisfied', 'b failed'] })
      expect(ran.error).toMatchObject({ code, step: 'b', node: 'pg1', detail: 'Nothing was changed.' })
      expect(ran.log).toEqual(['check a', 'check b'])
    }
  })

  test('takes back what this run applied, in reverse, and not what it found done', async () => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'a'),
        fake(log, 'b', { isDone: true }),
        fake(log, 'c', { hasUndo: false }),
        fake(log, 'd', { fails: 'disk-full' }),
        fake(log, 'e'),
      ]),
    )
    expect(changes(ran)).toEqual(['apply a', 'apply c', 'apply d', 'undo d', 'undo a'])
    expect(ran.states).toEqual(['a undone', 'b satisfied', 'c applied', 'd undone'])
    expect(ran).toMatchObject({ exitCode: 5, hasChanged: false, error: { code: 'disk-full', step: 'd' } })
    expect(ran.error?.detail).toBe('What this run had changed was taken back.')
    expect(ran.log.at(-1)).toBe('clear')
  })

  test('tells what goes away with a step that is taken back', async () => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'folder'),
        fake(log, 'content', { hasUndo: false, goesWith: 'folder' }),
        fake(log, 'other', { hasUndo: false, goesWith: 'another folder' }),
        fake(log, 'd', { fails: 'disk-full' }),
      ]),
    )
    expect(ran.states).toEqual(['folder undone', 'content undone', 'other applied', 'd undone'])
  })

  test('ends what a program said as a sentence, before it says what became of the cluster', async () => {
    const fails = () => {
      throw new ReplctlError('disk-full', 'a failed', { detail: 'mkdir: Permission denied' })
    }
    const ran = await run((log) => fake(log, 'a', { onApply: fails }))
    expect(ran.error?.detail).toBe('mkdir: Permission denied. What this run had changed was taken back.')
  })

  test('a refusal after something was applied counts as a failure', async () => {
    const ran = await run((log) => inOrder([fake(log, 'a'), fake(log, 'b', { refuses: 'primary-alive' })]))
    expect(changes(ran)).toEqual(['apply a', 'undo a'])
    expect(ran).toMatchObject({ exitCode: 5, hasChanged: false, error: { code: 'primary-alive' } })
  })

  test('a step that does not take effect has failed', async () => {
    const ran = await run((log) => fake(log, 'a', { isVain: true }))
    expect(ran.error).toMatchObject({
      code: 'remote-command-failed',
      message: '"a" did not take effect on pg1',
      detail: expect.stringContaining('Read back: a is missing.'),
    })
    expect(ran).toMatchObject({ exitCode: 5, states: ['a undone'] })
  })

  test('a check that only looks and is not met has failed, too', async () => {
    const ran = await run((log) => ({ title: 'a', node: nodeName('pg1'), check: fake(log, 'a').check }))
    expect(ran).toMatchObject({ exitCode: 3, hasChanged: false, states: ['a failed'] })
  })

  test.each([
    ['stay on a node that is out of reach', true, 'connection-lost'],
    ['be left as nobody knows any more what was before', 'cannot-abort', 'cannot-abort'],
  ] as const)('what may %s keeps nothing before it from being taken back', async (_, undoFails, code) => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'prepare'),
        fake(log, 'slot', { undoFails, mayBeLeftBehind: true }),
        fake(log, 'stop', { fails: 'start-failed' }),
      ]),
    )
    expect(changes(ran).slice(-3)).toEqual(['undo stop', 'undo slot', 'undo prepare'])
    expect(ran).toMatchObject({ exitCode: 5, error: { code: 'start-failed' } })
    expect(ran.events.find((event) => event.type === 'warning')).toMatchObject({
      error: { code, step: 'slot' },
    })
  })

  test('what cannot be taken back leaves the cluster part-way, and what it rests on alone', async () => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'slot'),
        fake(log, 'clone', { undoFails: true }),
        fake(log, 'c', { fails: 'start-failed' }),
      ]),
    )
    expect(changes(ran)).toEqual(['apply slot', 'apply clone', 'apply c', 'undo c', 'undo clone'])
    expect(ran).toMatchObject({ exitCode: 6, hasChanged: true, error: { code: 'start-failed' } })
    expect(ran.error?.detail).toContain('"replctl resume" goes on, "replctl abort" takes it back')
    expect(ran.events.find((event) => event.type === 'warning')).toMatchObject({
      error: { code: 'connection-lost', step: 'clone' },
    })
    expect(ran.log).not.toContain('clear')
  })

  test('the time limit leaves standing what may still get there', async () => {
    const ran = await run((log) => inOrder([fake(log, 'a'), fake(log, 'b', { fails: 'timeout' })]))
    expect(changes(ran)).toEqual(['apply a', 'apply b'])
    expect(ran).toMatchObject({ exitCode: 7, hasChanged: true, states: ['a applied', 'b failed'] })
    expect(ran.log).not.toContain('clear')
  })

  test('a fault of replctl keeps exit code 1, and is taken back like any other', async () => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'a'),
        fake(log, 'b', { onApply: () => Promise.reject(new TypeError('x is undefined')) }),
      ]),
    )
    expect(changes(ran)).toEqual(['apply a', 'apply b', 'undo b', 'undo a'])
    expect(ran).toMatchObject({ exitCode: 1, error: { code: 'internal-error' } })
  })

  test('a check that throws refuses', async () => {
    const ran = await run((log) => ({
      ...fake(log, 'a'),
      check: () => Promise.reject(new ReplctlError('not-answering', 'silent', { node: 'pg2' })),
    }))
    expect(ran).toMatchObject({
      exitCode: 3,
      hasChanged: false,
      error: { code: 'not-answering', node: 'pg2', step: 'a' },
    })
  })

  test('what acts outside of the cluster is no change of it', async () => {
    const ran = await run((log) =>
      inOrder([fake(log, 'fence', { leavesClusterAlone: true, fails: 'primary-unproven' }), fake(log, 'b')]),
    )
    expect(ran.log).toEqual(['check fence', 'apply fence'])
    expect(ran).toMatchObject({ exitCode: 3, hasChanged: false, error: { detail: 'Nothing was changed.' } })
  })
})

describe('what earlier steps of the run bring about', () => {
  const wait = { leavesClusterAlone: true, comesOfEarlier: true } as const
  const both = async (make: (log: Log) => Plan) => {
    const [plan, ran] = [await run(make, { how: 'plan' }), await run(make)]
    expect(plan).toMatchObject({ exitCode: 0, hasChanged: false })
    expect(plan.states.map((state) => state.replace('planned', 'applied'))).toEqual(ran.states)
    return ran
  }

  test('is told as applied after a change, in plan and run alike, whether it had to be waited for or not', async () => {
    for (const isDone of [false, true]) {
      const ran = await both((log) => inOrder([fake(log, 'a'), fake(log, 'wait', { ...wait, isDone })]))
      expect(ran).toMatchObject({ hasChanged: true, states: ['a applied', 'wait applied'] })
      expect(changes(ran)).toEqual(isDone ? ['apply a'] : ['apply a', 'apply wait'])
    }
  })

  test('is told as satisfied where nothing was changed before it, also by a run that waited', async () => {
    for (const isDone of [false, true]) {
      const steps = (log: Log) => [fake(log, 'a', { isDone: true }), fake(log, 'wait', { ...wait, isDone })]
      const ran = await both((log) => inOrder(steps(log)))
      expect(ran).toMatchObject({ hasChanged: false, states: ['a satisfied', 'wait satisfied'] })
    }
  })

  test('is a change of its own where nothing else was changed and it does more than wait', async () => {
    const ran = await both((log) => fake(log, 'checkpoint', { comesOfEarlier: true }))
    expect(ran).toMatchObject({ hasChanged: true, states: ['checkpoint applied'] })
    const again = await both((log) => fake(log, 'checkpoint', { comesOfEarlier: true, isDone: true }))
    expect(again).toMatchObject({ hasChanged: false, states: ['checkpoint satisfied'] })
  })

  test('does not come of what runs beside it, of what comes later, or of what leaves the cluster alone', async () => {
    const fence = { leavesClusterAlone: true } as const
    const ran = await both((log) =>
      inOrder([
        fake(log, 'fence', fence),
        together([fake(log, 'wait', { ...wait, isDone: true }), fake(log, 'beside')]),
      ]),
    )
    expect(ran.states).toEqual(['fence applied', 'wait satisfied', 'beside applied'])
  })

  test('is known only after them in a plan, and is then theirs', async () => {
    const later = { ...wait, check: async () => unknownUntil('it runs') }
    const planned = (isDone: boolean) =>
      run((log) => inOrder([fake(log, 'start', { isDone }), { ...fake(log, 'wait'), ...later }]), {
        how: 'plan',
      })
    expect((await planned(false)).states).toEqual(['start planned', 'wait planned'])
    expect((await planned(true)).states).toEqual(['start satisfied', 'wait satisfied'])
  })
})

describe('the point of no return', () => {
  const promote = { pointOfNoReturn: true } as const

  test('is crossed with the lock proved first, and the journal says so before the change', async () => {
    const ran = await run((log) => inOrder([fake(log, 'a'), fake(log, 'promote', promote)]))
    expect(ran.log.slice(4)).toEqual([
      ...['check promote', 'confirm pg1', 'journal a promote !', 'apply promote', 'check promote'],
      'clear',
    ])
    expect(ran.exitCode).toBe(0)
  })

  test('behind it the journal says all there is to say, and each change only proves the lock', async () => {
    const ran = await run((log) =>
      inOrder([fake(log, 'promote', promote), fake(log, 'follow', { hasUndo: false }), fake(log, 'record')]),
    )
    const told = ran.log.filter((line) => /^(journal|prove|apply)/.test(line))
    expect(told).toEqual([
      ...['journal promote !', 'apply promote', 'prove', 'apply follow', 'prove', 'apply record'],
    ])
  })

  test('behind it nothing is changed without the lock', async () => {
    const lost = new ReplctlError('lock-lost', 'it was lost')
    const ran = await run((log) => inOrder([fake(log, 'promote', promote), fake(log, 'follow')]), {
      lock: { prove: () => Promise.reject(lost) },
    })
    expect(changes(ran)).toEqual(['apply promote'])
    expect(ran).toMatchObject({ exitCode: 6, error: { code: 'lock-lost', step: 'follow' } })
  })

  test('without the lock nothing is begun: nothing was changed, and there is nothing to resume', async () => {
    const lost = new ReplctlError('lock-lost', 'it was lost')
    const ran = await run((log) => inOrder([fake(log, 'prepare'), fake(log, 'promote', promote)]), {
      lock: { confirm: () => Promise.reject(lost), writeJournal: () => Promise.reject(lost) },
    })
    expect(changes(ran)).toEqual([])
    expect(ran).toMatchObject({ exitCode: 4, hasChanged: false, error: { code: 'lock-lost' } })
    expect(ran.error?.detail).toContain('Nothing was changed.')
  })

  test('whoever goes on behind it writes the journal once, wherever it was missing', async () => {
    const ran = await run((log) => inOrder([fake(log, 'follow'), fake(log, 'record')]), {
      journal: { begun: ['pg1: promote'], isPastPointOfNoReturn: true },
    })
    const told = ran.log.filter((line) => /^(journal|prove|apply)/.test(line))
    expect(told).toEqual(['journal promote follow !', 'apply follow', 'prove', 'apply record'])
  })

  test('is not crossed again where it is satisfied already', async () => {
    const ran = await run((log) => fake(log, 'promote', { ...promote, isDone: true }))
    expect(ran.log).toEqual(['check promote'])
  })

  test('behind it nothing is taken back, and the journal stays', async () => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'a'),
        fake(log, 'promote', promote),
        fake(log, 'follow', { fails: 'not-streaming' }),
      ]),
    )
    expect(changes(ran)).toEqual(['apply a', 'apply promote', 'apply follow'])
    expect(ran).toMatchObject({
      exitCode: 6,
      hasChanged: true,
      states: ['a applied', 'promote applied', 'follow failed'],
    })
    expect(ran.error?.detail).toBe('The point of no return is crossed: "replctl resume" goes on from here.')
    expect(ran.log).not.toContain('clear')
  })

  test('a promotion that failed half-way counts as crossed', async () => {
    const ran = await run((log) =>
      inOrder([fake(log, 'a'), fake(log, 'promote', { ...promote, fails: 'remote-command-failed' })]),
    )
    expect(changes(ran)).toEqual(['apply a', 'apply promote'])
    expect(ran.exitCode).toBe(6)
  })

  test('the time limit behind it keeps its own exit code', async () => {
    const ran = await run((log) =>
      inOrder([fake(log, 'promote', promote), fake(log, 'follow', { fails: 'timeout' })]),
    )
    expect(ran).toMatchObject({ exitCode: 7, hasChanged: true })
  })

  const lost: Partial<ClusterLock> = {
    confirm: () => Promise.reject(new ReplctlError('lock-lost', 'the cluster lock on pg1 was lost')),
  }

  test('a lost lock stops the run before it; without the lock nothing is taken back either', async () => {
    const ran = await run((log) => inOrder([fake(log, 'a'), fake(log, 'promote', promote), fake(log, 'c')]), {
      lock: lost,
    })
    expect(changes(ran)).toEqual(['apply a'])
    expect(ran).toMatchObject({
      exitCode: 6,
      hasChanged: true,
      error: { code: 'lock-lost', step: 'promote' },
    })
    expect(ran.error?.detail).toContain('"replctl resume" goes on')
    expect(ran.log).not.toContain('clear')
  })

  test('a lost lock before anything was applied says that nothing was changed', async () => {
    const ran = await run((log) => fake(log, 'promote', promote), { lock: lost })
    expect(ran.error?.detail).toBe('Nothing was changed.')
    expect(ran).toMatchObject({ hasChanged: false, states: ['promote failed'] })
  })
})

describe('a step that must not stand alone', () => {
  const stop = { mustNotStandAlone: true } as const
  const promote = { pointOfNoReturn: true } as const
  const stopped = (last: Fake) => (log: Log) =>
    inOrder([fake(log, 'prepare'), fake(log, 'stop', stop), fake(log, 'promote', last)])

  test('is taken back with all before it, also where only a deadline passed: exit 5', async () => {
    for (const code of ['remote-command-failed', 'timeout'] as const) {
      const ran = await run(stopped({ refuses: code }))
      expect(changes(ran)).toEqual(['apply prepare', 'apply stop', 'undo stop', 'undo prepare'])
      expect(ran).toMatchObject({ exitCode: 5, hasChanged: false })
      expect(ran.error?.detail).toBe('Everything was taken back: the cluster is as before.')
      expect(ran.log.at(-1)).toBe('clear')
    }
  })

  test('is taken back by the run that goes on with it and fails, whoever began it', async () => {
    const ran = await run(
      (log) =>
        inOrder([
          fake(log, 'prepare', { isDone: true }),
          fake(log, 'stop', { ...stop, isDone: true }),
          fake(log, 'promote', { refuses: 'not-answering' }),
        ]),
      { journal: { begun: ['pg1: prepare', 'pg1: stop'] } },
    )
    expect(changes(ran)).toEqual(['undo stop', 'undo prepare'])
    expect(ran).toMatchObject({ exitCode: 5, hasChanged: false })
    expect(ran.log.at(-1)).toBe('clear')
  })

  test('cannot be taken back: it stands, and the journal says so', async () => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'stop', { ...stop, undoFails: true }),
        fake(log, 'promote', { refuses: 'not-answering' }),
      ]),
    )
    expect(ran).toMatchObject({ exitCode: 6, hasChanged: true })
    expect(ran.log).not.toContain('clear')
  })

  test('a crossing that one of its nodes does not confirm is not crossed: its journals say so, and all is taken back', async () => {
    const ran = await run(
      (log) =>
        inOrder([
          fake(log, 'stop', stop),
          fake(log, 'promote', { ...promote, crossesWith: [nodeName('pg2')] }),
        ]),
      {
        lock: {
          confirm: async (node) => {
            if (node === 'pg2') throw new ReplctlError('lock-lost', 'the cluster lock on pg2 was lost')
          },
        },
      },
    )
    expect(changes(ran)).toEqual(['apply stop', 'undo stop'])
    expect(ran.log.filter((line) => line.startsWith('journal')).at(-1)).toBe('journal stop')
    expect(ran).toMatchObject({ exitCode: 5, error: { code: 'lock-lost' } })
  })

  test('without the lock on its own node it is left as it is: somebody else may be at work', async () => {
    const ran = await run(stopped(promote), {
      lock: { confirm: () => Promise.reject(new ReplctlError('lock-lost', 'lost')) },
    })
    expect(changes(ran)).toEqual(['apply prepare', 'apply stop'])
    expect(ran.exitCode).toBe(6)
  })

  test('behind the point of no return only what surely was not crossed is taken back', async () => {
    const failing = { ...promote, fails: 'not-answering' } as const
    const not = await run(stopped({ ...failing, hasCrossed: async () => false }))
    expect(changes(not).slice(3)).toEqual(['undo promote', 'undo stop', 'undo prepare'])
    expect(not.log).toContain('journal prepare stop promote')
    expect(not.exitCode).toBe(5)
    for (const hasCrossed of [async () => true, () => Promise.reject(new Error('who knows'))]) {
      const may = await run(stopped({ ...failing, hasCrossed }))
      expect(changes(may)).toEqual(['apply prepare', 'apply stop', 'apply promote'])
      expect(may.exitCode).toBe(6)
    }
  })
})

describe('the journal', () => {
  test('must be kept by the nodes that a later crossing needs, before what must not stand alone is begun', async () => {
    const full = new ReplctlError('disk-full', 'could not write down what is about to be done')
    const nodes = ['pg1', 'pg2'].map(nodeName)
    const ran = await run(
      (log) =>
        inOrder([fake(log, 'mark'), fake(log, 'stop', { mustNotStandAlone: true, beginsWith: nodes })]),
      {
        lock: {
          writeJournal: async (_text, provenOn) => {
            if (provenOn?.join() === nodes.join()) throw full
          },
        },
      },
    )
    expect(changes(ran)).toEqual(['apply mark', 'undo mark'])
    expect(ran).toMatchObject({ exitCode: 5, hasChanged: false, error: { code: 'disk-full', step: 'stop' } })
  })

  test('lies ready for a crossing, word for word, before what must not stand alone is done', async () => {
    const texts: string[] = []
    const nodes = ['pg1', 'pg2'].map(nodeName)
    const ran = await run(
      (log) =>
        inOrder([
          fake(log, 'mark'),
          fake(log, 'stop', { beginsWith: nodes }),
          fake(log, 'promote', { pointOfNoReturn: true, crossesWith: nodes }),
        ]),
      {
        lock: {
          prepareJournal: async (text) => void texts.push(`ready ${text}`),
          writeJournal: async (text) => void texts.push(text),
        },
      },
    )
    expect(ran.exitCode).toBe(0)
    const [, , ready, crossing] = texts
    expect(ready).toBe(`ready ${crossing}`)
    expect(JSON.parse(crossing ?? '')).toMatchObject({
      isPastPointOfNoReturn: true,
      begun: ['pg1: mark', 'pg1: stop', 'pg1: promote'],
    })
    expect(texts).toHaveLength(4)
  })

  test('that cannot be laid ready is written all the same', async () => {
    const nodes = [nodeName('pg1')]
    const ran = await run(
      (log) =>
        inOrder([
          fake(log, 'stop', { beginsWith: nodes }),
          fake(log, 'promote', { pointOfNoReturn: true, crossesWith: nodes }),
        ]),
      { lock: { prepareJournal: () => Promise.reject(new ReplctlError('lock-lost', 'lost')) } },
    )
    expect(changes(ran)).toEqual(['apply stop', 'apply promote'])
    expect(ran.log).toContain('journal stop promote !')
  })

  test('is written once for all that begins while it is being written', async () => {
    const texts: string[][] = []
    let finish: () => void = () => undefined
    const first = new Promise<void>((resolve) => {
      finish = resolve
    })
    const ran = await run((log) => together(['a', 'b', 'c', 'd'].map((title) => fake(log, title))), {
      lock: {
        writeJournal: async (text) => {
          texts.push((JSON.parse(text) as Journal).begun.map((key) => key.slice(-1)))
          setTimeout(finish, 5)
          if (texts.length === 1) await first
        },
      },
    })
    expect(texts.length).toBeLessThan(3)
    expect(texts.at(-1)?.toSorted()).toEqual(['a', 'b', 'c', 'd'])
    expect(ran).toMatchObject({ exitCode: 0, states: ['a applied', 'b applied', 'c applied', 'd applied'] })
  })

  test('a change that cannot be announced is not made', async () => {
    const ran = await run((log) => fake(log, 'a'), {
      lock: { writeJournal: () => Promise.reject(new ReplctlError('lock-lost', 'lost')) },
    })
    expect(changes(ran)).toEqual([])
    expect(ran.error).toMatchObject({ code: 'lock-lost' })
  })

  test('holds node and title of each step that was begun, and what an earlier run had begun', async () => {
    const texts: string[] = []
    await run(
      (log) => inOrder([fake(log, 'a', { isDone: true }), fake(log, 'b', { node: nodeName('pg2') })]),
      {
        journal: { begun: ['pg1: a'] },
        lock: { writeJournal: async (text) => void texts.push(text) },
      },
    )
    expect(texts.map((text) => JSON.parse(text))).toEqual([
      { ...journal, begun: ['pg1: a', 'pg2: b'], owed: ['pg2: b'] },
    ])
  })

  test('does not owe what may be left behind: abort does not wait for the node that has it', async () => {
    const texts: string[] = []
    await run((log) => fake(log, 'a', { mayBeLeftBehind: true }), {
      lock: { writeJournal: async (text) => void texts.push(text) },
    })
    expect(JSON.parse(texts[0] ?? '')).not.toHaveProperty('owed')
  })
})

test('what abort would take back is shown: the begun steps that can be, and nothing else', () => {
  const log: Log = []
  const plan = inOrder([fake(log, 'a'), fake(log, 'b', { hasUndo: false }), fake(log, 'c'), fake(log, 'd')])
  const shown = planUndo(plan, { ...journal, begun: ['pg1: a', 'pg1: b', 'pg1: d'] }, [])
  expect(shown).toMatchObject({ exitCode: 0, hasChanged: false, error: null })
  expect(shown.steps.map(({ n, title, state }) => `${n} ${title} ${state}`)).toEqual([
    '1 a planned',
    '4 d planned',
  ])
  expect(log).toEqual([])
})

test('what only the run itself could take back is not shown as if abort would', () => {
  const plan = inOrder([fake([], 'a'), { ...fake([], 'b'), undoEndsWithRun: true }])
  const shown = planUndo(plan, { ...journal, begun: ['pg1: a', 'pg1: b'] }, [])
  expect(shown.steps.map(({ title }) => title)).toEqual(['a'])
})

describe('abort', () => {
  const three = (log: Log) => inOrder([fake(log, 'a'), fake(log, 'b'), fake(log, 'c')])
  const owed = ['pg1: a', 'pg9: fence: it', 'pg1: c']

  test('takes the begun steps back, the last first, and forgets the journal', async () => {
    const ran = await run(three, { how: 'undo', journal: { begun: ['pg1: a', 'pg1: c'], owed: ['pg1: a'] } })
    expect(ran.log.filter((line) => !line.startsWith('confirm'))).toEqual([
      ...['undo c', 'journal a', 'undo a', 'journal ', 'clear'],
    ])
    expect(ran).toMatchObject({ exitCode: 0, error: null, hasChanged: true })
  })

  test('takes back no more than what came after a step on a node that cannot be reached, and says so', async () => {
    const ran = await run(three, { how: 'undo', journal: { begun: owed, owed } })
    expect(changes(ran)).toEqual(['undo c'])
    expect(ran.log).not.toContain('clear')
    expect(ran.log.at(-1)).toBe('journal a fence: it')
    expect(ran).toMatchObject({ exitCode: 6, error: { code: 'cannot-abort', node: 'pg9' } })
    expect(ran.error?.message).toContain('"fence: it" on pg9')
    expect(planUndo(three([]), { ...journal, begun: owed, owed }, [nodeName('pg9')])).toMatchObject({
      exitCode: 6,
      error: { code: 'cannot-abort', node: 'pg9' },
      steps: [{ title: 'c' }],
    })
  })

  test('passes over what had nothing to be taken back', async () => {
    const ran = await run(three, { how: 'undo', journal: { begun: [...owed, 'pg9: x'], owed: ['pg1: c'] } })
    expect(changes(ran)).toEqual(['undo c', 'undo a'])
    expect(ran).toMatchObject({ exitCode: 0, error: null })
  })

  test('warns of what is no part of the operation any more by what can be seen, and takes back the rest', async () => {
    const begun = ['pg1: a', 'pg2: x', 'pg1: c']
    const ran = await run(three, { how: 'undo', journal: { begun, owed: begun } })
    expect(changes(ran)).toEqual(['undo c', 'undo a'])
    expect(ran).toMatchObject({ exitCode: 0, error: null })
    expect(ran.events.filter(({ type }) => type === 'warning')).toMatchObject([
      { error: { code: 'cannot-abort', node: 'pg2', message: expect.stringContaining('"x" on pg2') } },
    ])
  })

  test('is told by the journal what has to be taken back', async () => {
    const texts: Journal[] = []
    await run((log) => inOrder([fake(log, 'a'), fake(log, 'b', { hasUndo: false }), fake(log, 'c')]), {
      lock: { writeJournal: async (text) => void texts.push(JSON.parse(text)) },
    })
    expect(texts.at(-1)).toMatchObject({
      begun: ['pg1: a', 'pg1: b', 'pg1: c'],
      owed: ['pg1: a', 'pg1: c'],
    })
  })
})

describe('steps side by side', () => {
  /** Resolves once the other part got there. */
  function meeting() {
    let come: () => void = () => undefined
    const met = new Promise<void>((resolve) => {
      come = resolve
    })
    return { met, come: () => come() }
  }

  test('run at the same time, each part in its own order', async () => {
    const { met, come } = meeting()
    const ran = await run((log) =>
      together([
        inOrder([fake(log, 'a1', { onApply: () => met }), fake(log, 'a2')]),
        inOrder([fake(log, 'b1'), fake(log, 'b2', { onApply: come })]),
      ]),
    )
    const order = changes(ran)
    expect(order.indexOf('apply b2')).toBeLessThan(order.indexOf('apply a2'))
    expect(ran.steps.map((step) => `${step.n} ${step.title}`)).toEqual(['1 a1', '2 a2', '3 b1', '4 b2'])
    expect(ran).toMatchObject({ exitCode: 0, hasChanged: true })
  })

  test('one part fails: its own steps are taken back, the others run to their end', async () => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'role'),
        together([
          inOrder([fake(log, 'a1'), fake(log, 'a2', { fails: 'start-failed' }), fake(log, 'a3')]),
          inOrder([fake(log, 'b1'), fake(log, 'b2')]),
        ]),
        fake(log, 'record'),
      ]),
    )
    expect(ran.states).toEqual(['role applied', 'a1 undone', 'a2 undone', 'b1 applied', 'b2 applied'])
    expect(ran).toMatchObject({ exitCode: 6, hasChanged: true, error: { code: 'start-failed', step: 'a2' } })
    expect(ran.log).not.toContain('clear')
  })

  test('one part of one thing fails: nothing of the others stands without it, nor what came before', async () => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'mark'),
        asOne([
          inOrder([fake(log, 'a1'), fake(log, 'a2', { fails: 'start-failed' })]),
          inOrder([fake(log, 'b1'), fake(log, 'b2', { isDone: true })]),
        ]),
        fake(log, 'stop'),
      ]),
    )
    expect(ran.states).toEqual(['mark undone', 'a1 undone', 'a2 undone', 'b1 undone', 'b2 satisfied'])
    expect(ran).toMatchObject({ exitCode: 5, hasChanged: false, error: { code: 'start-failed', step: 'a2' } })
    expect(ran.log.at(-1)).toBe('clear')
  })

  test('all parts fail: everything is taken back, also what came before', async () => {
    const failing = { fails: 'start-failed' } as const
    const ran = await run((log) =>
      inOrder([fake(log, 'role'), together([fake(log, 'a', failing), fake(log, 'b', failing)])]),
    )
    expect(ran.states).toEqual(['role undone', 'a undone', 'b undone'])
    expect(ran).toMatchObject({ exitCode: 5, hasChanged: false })
  })

  test('a part that ran out of time is left standing, as it is when it runs alone', async () => {
    const ran = await run((log) =>
      together([inOrder([fake(log, 'a1'), fake(log, 'a2', { fails: 'timeout' })]), fake(log, 'b')]),
    )
    expect(changes(ran).filter((line) => line.startsWith('undo'))).toEqual([])
    expect(ran).toMatchObject({
      exitCode: 7,
      hasChanged: true,
      states: ['a1 applied', 'a2 failed', 'b applied'],
    })
  })

  test('a part is refused while the others had nothing to do: nothing was changed', async () => {
    const ran = await run((log) =>
      together([fake(log, 'a', { refuses: 'port-in-use' }), fake(log, 'b', { isDone: true })]),
    )
    expect(ran).toMatchObject({ exitCode: 3, hasChanged: false, error: { detail: 'Nothing was changed.' } })
  })

  test('a part fails while the others had nothing to do: all is as before', async () => {
    const ran = await run((log) =>
      together([fake(log, 'a', { fails: 'start-failed' }), fake(log, 'b', { isDone: true })]),
    )
    expect(ran).toMatchObject({ exitCode: 5, hasChanged: false, states: ['a undone', 'b satisfied'] })
    expect(ran.log.at(-1)).toBe('clear')
  })

  test('behind the point of no return a part that fails is left as it is', async () => {
    const ran = await run((log) =>
      inOrder([
        fake(log, 'promote', { pointOfNoReturn: true }),
        together([fake(log, 'a', { fails: 'not-streaming' }), fake(log, 'b')]),
      ]),
    )
    expect(ran).toMatchObject({ exitCode: 6, states: ['promote applied', 'a failed', 'b applied'] })
  })
})

describe('an interruption', () => {
  test('before anything was applied changes nothing', async () => {
    const ran = await run((log) => fake(log, 'a'), { signal: AbortSignal.abort() })
    expect(ran).toMatchObject({
      exitCode: 130,
      hasChanged: false,
      error: { code: 'interrupted', detail: 'Nothing was changed.' },
    })
  })

  test('lets the step under way end, then takes back', async () => {
    const controller = new AbortController()
    const ran = await run(
      (log) => inOrder([fake(log, 'a', { onApply: () => controller.abort() }), fake(log, 'b')]),
      {
        signal: controller.signal,
      },
    )
    expect(changes(ran)).toEqual(['apply a', 'undo a'])
    expect(ran).toMatchObject({ exitCode: 130, hasChanged: false })
  })

  test('taking back is not interrupted by the same signal', async () => {
    const controller = new AbortController()
    const signals: boolean[] = []
    await run(
      (log) =>
        inOrder([
          {
            ...fake(log, 'a', { onApply: () => controller.abort() }),
            undo: async (ctx) => void signals.push(ctx.signal.aborted),
          },
          fake(log, 'b'),
        ]),
      { signal: controller.signal },
    )
    expect(signals).toEqual([false])
  })

  test('behind the point of no return says how to go on', async () => {
    const controller = new AbortController()
    const ran = await run(
      (log) =>
        inOrder([
          fake(log, 'promote', { pointOfNoReturn: true, onApply: () => controller.abort() }),
          fake(log, 'b'),
        ]),
      { signal: controller.signal },
    )
    expect(ran).toMatchObject({ exitCode: 130, hasChanged: true })
    expect(ran.error?.detail).toContain('"replctl resume" goes on')
  })
})

describe('a dry run', () => {
  const someSteps = (log: Log) =>
    inOrder([
      fake(log, 'a', { isDone: true }),
      together([fake(log, 'b'), fake(log, 'c', { node: nodeName('pg2') })]),
      { ...fake(log, 'd'), check: async () => unknownUntil('b') },
      fake(log, 'promote', { pointOfNoReturn: true }),
    ])

  test('says what is satisfied and what is planned, and changes nothing', async () => {
    const ran = await run(someSteps, { how: 'plan' })
    expect(ran.states).toEqual(['a satisfied', 'b planned', 'c planned', 'd planned', 'promote planned'])
    expect(ran).toMatchObject({ exitCode: 0, hasChanged: false })
    expect(ran.log).toEqual(['check a', 'check b', 'check c', 'check promote'])
    expect(ran.events).toContainEqual(expect.objectContaining({ title: 'd', because: 'known after: b' }))
  })

  test('has the numbers, nodes and titles of the run', async () => {
    const lines = ({ steps }: Outcome) => steps.map(({ n, node, title }) => `${n} ${node} ${title}`)
    const inTurn = (log: Log) => inOrder(stepsOf(someSteps(log)).filter((step) => step.title !== 'd'))
    expect(lines(await run(inTurn, { how: 'plan' }))).toEqual(lines(await run(inTurn)))
  })

  test('stops at the first step that would be refused, with its exit code', async () => {
    const ran = await run(
      (log) => inOrder([fake(log, 'a'), fake(log, 'b', { refuses: 'disk-full' }), fake(log, 'c')]),
      { how: 'plan' },
    )
    expect(ran).toMatchObject({
      exitCode: 3,
      states: ['a planned', 'b failed'],
      error: { code: 'disk-full', step: 'b', node: 'pg1' },
    })
  })

  test('steps know that it is one', async () => {
    const seen: boolean[] = []
    const step = (log: Log): Step => ({
      ...fake(log, 'a'),
      check: async (ctx) => {
        seen.push(ctx.isDryRun, ctx.isChecking)
        return satisfied('seen')
      },
    })
    await run(step, { how: 'plan' })
    await run(step)
    expect(seen).toEqual([true, true, false, true])
  })
})

describe('a run that goes on where an earlier one stopped', () => {
  const begun = { begun: ['pg1: a', 'pg1: b'] }

  test('finds done what is done, carries out the rest, and clears the journal', async () => {
    const ran = await run(
      (log) => inOrder([fake(log, 'a', { isDone: true }), fake(log, 'b'), fake(log, 'c')]),
      { journal: begun },
    )
    expect(ran.log).toContain('journal a b c')
    expect(ran).toMatchObject({
      exitCode: 0,
      hasChanged: true,
      states: ['a satisfied', 'b applied', 'c applied'],
    })
    expect(ran.log.at(-1)).toBe('clear')
  })

  test('that has nothing left to do clears the journal', async () => {
    const ran = await run((log) => fake(log, 'a', { isDone: true }), { journal: begun })
    expect(ran.log).toEqual(['check a', 'clear'])
  })

  test('that fails keeps what stands: the earlier run’s part of it cannot be told apart', async () => {
    const ran = await run(
      (log) => inOrder([fake(log, 'a', { isDone: true }), fake(log, 'b', { fails: 'disk-full' })]),
      { journal: begun },
    )
    expect(changes(ran)).toEqual(['apply b'])
    expect(ran).toMatchObject({ exitCode: 6, hasChanged: true })
    expect(ran.log).not.toContain('clear')
  })

  test('that is refused is part-way still, although it changed nothing itself', async () => {
    const ran = await run((log) => fake(log, 'a', { refuses: 'disk-full' }), { journal: begun })
    expect(ran).toMatchObject({ exitCode: 6, hasChanged: false })
    expect(ran.error?.detail).toContain('Part of it stands')
  })

  test('that had crossed its point of no return goes only forward', async () => {
    const ran = await run((log) => inOrder([fake(log, 'a'), fake(log, 'b', { fails: 'not-streaming' })]), {
      journal: { begun: ['pg1: promote'], isPastPointOfNoReturn: true },
    })
    expect(changes(ran)).toEqual(['apply a', 'apply b'])
    expect(ran.exitCode).toBe(6)
  })
})

describe('what cannot be taken back', () => {
  test('stays part-way after a failure: nothing is taken back, and nothing else is kept from beginning', async () => {
    const told: Journal[] = []
    const ran = await run(
      (log) =>
        inOrder([
          fake(log, 'a'),
          fake(log, 'b', { cannotBeUndone: true, hasUndo: false }),
          fake(log, 'c', { fails: 'disk-full' }),
        ]),
      { lock: { writeJournal: async (text) => void told.push(JSON.parse(text) as Journal) } },
    )
    expect(changes(ran)).toEqual(['apply a', 'apply b', 'apply c'])
    expect(ran).toMatchObject({ exitCode: 6, hasChanged: true, hasCrossed: false })
    expect(ran.error?.detail).toContain('cannot be taken back: "replctl resume" goes on')
    expect(told.map(({ isFinal, isPastPointOfNoReturn }) => [isFinal, isPastPointOfNoReturn])).toEqual([
      [undefined, false],
      [true, false],
      [true, false],
    ])
    expect(ran.log).not.toContain('clear')
  })

  test('so does one that an earlier run had begun', async () => {
    const ran = await run((log) => inOrder([fake(log, 'a'), fake(log, 'b', { fails: 'disk-full' })]), {
      journal: { begun: ['pg1: x'], isFinal: true },
    })
    expect(changes(ran)).toEqual(['apply a', 'apply b'])
    expect(ran.exitCode).toBe(6)
  })
})

describe('a failure without the lock', () => {
  test('takes nothing back: somebody else may have gone on from there', async () => {
    const lost = () => Promise.reject(new ReplctlError('lock-lost', 'the cluster lock on pg1 was lost'))
    const ran = await run((log) => inOrder([fake(log, 'a'), fake(log, 'b', { fails: 'not-streaming' })]), {
      lock: { confirm: lost },
    })
    expect(changes(ran)).toEqual(['apply a', 'apply b'])
    expect(ran).toMatchObject({ exitCode: 6, hasChanged: true, error: { code: 'not-streaming' } })
    expect(ran.log).not.toContain('clear')
  })
})

describe('a crossing that not everybody could be told of', () => {
  test('leaves no journal of a run that had begun nothing', async () => {
    const told: unknown[] = []
    const ran = await run((log) => fake(log, 'a', { pointOfNoReturn: true }), {
      lock: {
        writeJournal: () => Promise.reject(new ReplctlError('lock-lost', 'the cluster lock on pg1 was lost')),
        clearJournal: async (ended) => void told.push(ended),
      },
    })
    expect(ran).toMatchObject({ hasChanged: false, hasCrossed: false, error: { code: 'lock-lost' } })
    expect(told).toEqual([['2026-03-01T12:00:00.000Z dba@control']])
  })
})

describe('an operation that another one gave way to', () => {
  const before: Journal = {
    ...journal,
    command: 'switchover',
    since: '2026-02-01T12:00:00.000Z',
    begun: ['pg2: x'],
  }
  const gaveWay = { superseded: ['2026-02-01T12:00:00.000Z dba@control'], before }
  const lockThatTells = (told: unknown[]): Partial<ClusterLock> => ({
    clearJournal: async (ended) => void told.push(ended),
    writeJournal: async (text) => void told.push((JSON.parse(text) as Journal).command),
    replaceJournal: async (text, ended) => void told.push((JSON.parse(text) as Journal).command, ended),
  })

  test('ends with it', async () => {
    const told: unknown[] = []
    await run((log) => fake(log, 'a'), { journal: gaveWay, lock: lockThatTells(told) })
    expect(told).toEqual(['add-standby', ['2026-03-01T12:00:00.000Z dba@control', ...gaveWay.superseded]])
  })

  test('ends with one that found all done, only where it had crossed its point of no return', async () => {
    for (const isPastPointOfNoReturn of [true, false]) {
      const told: unknown[] = []
      await run((log) => fake(log, 'a', { isDone: true }), {
        journal: { ...gaveWay, before: { ...before, isPastPointOfNoReturn } },
        lock: lockThatTells(told),
      })
      expect(told).toEqual(isPastPointOfNoReturn ? [gaveWay.superseded] : [])
    }
  })

  test('is unfinished again where this one had nothing to do with it, also where it found all done', async () => {
    for (const isDone of [true, false]) {
      const told: unknown[] = []
      await run((log) => fake(log, 'a', { isDone }), {
        journal: { before: { ...before, isPastPointOfNoReturn: true }, isAside: true },
        lock: lockThatTells(told),
      })
      expect(told).toEqual(
        isDone ? [] : ['add-standby', 'switchover', ['2026-03-01T12:00:00.000Z dba@control']],
      )
    }
  })

  test('is over with one that was aside and took its place, and what that had left as it was is unfinished again', async () => {
    const promote = { ...before, command: 'promote', since: '2026-01-01T12:00:00.000Z' }
    const first = { ...before, command: 'follow', before: promote, isAside: true as const }
    const superseded = ['2026-02-01T12:00:00.000Z dba@control']
    const told = async (fails?: ErrorCode) => {
      const said: unknown[] = []
      await run((log) => fake(log, 'a', fails === undefined ? {} : { fails }), {
        journal: { before: first, isAside: true, superseded },
        lock: lockThatTells(said),
      })
      return said
    }
    const own = '2026-03-01T12:00:00.000Z dba@control'
    expect(await told()).toEqual(['add-standby', 'promote', [own, ...superseded]])
    expect(await told('not-streaming')).toEqual(['add-standby', 'follow', [own]])
  })

  test('is unfinished again where this one is taken back by abort: a second abort takes that one back, too', async () => {
    const told: unknown[] = []
    await run((log) => fake(log, 'a'), {
      how: 'undo',
      journal: { ...gaveWay, begun: ['pg1: a'] },
      lock: lockThatTells(told),
    })
    expect(told).toEqual(['add-standby', 'switchover', ['2026-03-01T12:00:00.000Z dba@control']])
  })

  test('is unfinished again where it failed and was taken back', async () => {
    const told: unknown[] = []
    await run((log) => fake(log, 'a', { fails: 'not-streaming' }), {
      journal: gaveWay,
      lock: lockThatTells(told),
    })
    expect(told).toEqual(['add-standby', 'switchover', ['2026-03-01T12:00:00.000Z dba@control']])
  })
})

describe('taking an unfinished run back', () => {
  const steps = (log: Log) => inOrder([fake(log, 'a'), fake(log, 'b', { isDone: true }), fake(log, 'c')])

  test('undoes in reverse what was begun, and nothing else', async () => {
    const ran = await run(steps, { how: 'undo', journal: { begun: ['pg1: a', 'pg1: c', 'pg2: b'] } })
    expect(ran.log).toEqual([
      ...['confirm pg1', 'undo c', 'journal a b', 'confirm pg1', 'undo a', 'journal b', 'clear'],
    ])
    expect(ran).toMatchObject({ exitCode: 0, hasChanged: true, states: ['a undone', 'c undone'] })
  })

  test('ends at the first step that cannot be undone, and keeps the journal', async () => {
    const ran = await run(
      (log) => inOrder([fake(log, 'a'), fake(log, 'b', { undoFails: true }), fake(log, 'c')]),
      {
        how: 'undo',
        journal: { begun: ['pg1: a', 'pg1: b', 'pg1: c'] },
      },
    )
    expect(changes(ran)).toEqual(['undo c', 'undo b'])
    expect(ran.log).not.toContain('clear')
    expect(ran).toMatchObject({
      exitCode: 6,
      hasChanged: true,
      error: { code: 'connection-lost', step: 'b', node: 'pg1' },
    })
  })
})

test('who goes on at once tells a failure without the state that it left', () => {
  expect(withoutState('It said: no. What this run had changed was taken back.')).toBe('It said: no.')
  expect(withoutState('It said: no.')).toBe('It said: no.')
})
