import { describe, expect, test } from 'vitest'
import type { EngineEvent, StepState } from '../../../src/engine/events.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { createPaint } from '../../../src/report/paint.ts'
import { createReporter } from '../../../src/report/reporter.ts'

const GiB = 2 ** 30
const started = (n: number, node: string, title: string): EngineEvent => ({
  type: 'step-started',
  n,
  node,
  title,
})
const finished = (
  n: number,
  node: string,
  title: string,
  state: StepState,
  because = 'done',
  ms = 5,
): EngineEvent => ({ type: 'step-finished', n, node, title, state, because, ms })
const progress = (n: number, message: string, doneBytes?: number): EngineEvent => ({
  type: 'step-progress',
  n,
  node: 'pg2',
  title: 'take a base backup from pg1',
  message,
  ...(doneBytes === undefined ? {} : { doneBytes, totalBytes: 3 * GiB, bytesPerSecond: 310 * 2 ** 20 }),
})
const warning: EngineEvent = {
  type: 'warning',
  error: new ReplctlError('clock-skew', 'the clocks differ', { hint: 'Start an NTP client.' }),
}

/** A reporter whose writes are kept one by one, and a clock that the test moves. */
function reporterFor(options: { isTerminal?: boolean; isQuiet?: boolean; width?: number } = {}) {
  const writes: string[] = []
  const clock = { now: 0 }
  const reporter = createReporter({
    write: (text) => writes.push(text),
    isTerminal: false,
    isQuiet: false,
    width: 100,
    paint: createPaint(0),
    now: () => clock.now,
    ...options,
  })
  const tell = (...events: EngineEvent[]) => events.forEach(reporter.listener)
  /** What was written since the last call. */
  const take = () => writes.splice(0).join('')
  return { tell, take, clock, finish: reporter.finish }
}

describe('without a terminal', () => {
  test('each finished step is one line', () => {
    const { tell, take, finish } = reporterFor()
    tell(
      started(1, 'pg1', 'require a free port'),
      finished(1, 'pg1', 'require a free port', 'satisfied', 'port 5432 is free'),
      started(2, 'pg2', 'start PostgreSQL'),
      finished(2, 'pg2', 'start PostgreSQL', 'applied', 'it runs with pid 123', 412),
      started(3, 'pg2', 'promote it to primary'),
      finished(3, 'pg2', 'promote it to primary', 'failed', 'waited 60 s\nin vain', 60_004),
      finished(2, 'pg2', 'start PostgreSQL', 'undone', 'taken back', 230),
    )
    finish()
    finish()
    expect(take()).toBe(
      `· pg1  require a free port  (port 5432 is free)
✓ pg2  start PostgreSQL  (it runs with pid 123)  0.4 s
✗ pg2  promote it to primary  (waited 60 s in vain)  1 min
↩ pg2  start PostgreSQL  (taken back)  0.2 s
`,
    )
  })

  test('progress is told every 5 s, and at once when its message changes', () => {
    const { tell, take, clock } = reporterFor()
    tell(started(1, 'pg2', 'take a base backup from pg1'))
    for (let ms = 0; ms <= 6_000; ms += 150) {
      clock.now = ms
      tell(progress(1, ms < 1_000 ? 'waiting for checkpoint' : 'streaming', ms < 1_000 ? 0 : 1.2 * GiB))
    }
    expect(take()).toBe(
      `… pg2  take a base backup from pg1  waiting for checkpoint
… pg2  take a base backup from pg1  1.2 GiB of 3.0 GiB (40 %), 310 MiB/s, 6 s left
`,
    )
    clock.now = 6_200
    tell(progress(1, 'streaming', 2.9 * GiB), progress(1, 'waiting for WAL', 3 * GiB))
    expect(take()).toBe(
      `… pg2  take a base backup from pg1  2.9 GiB of 3.0 GiB (96 %), 310 MiB/s, 1 s left
… pg2  take a base backup from pg1  waiting for WAL, 3.0 GiB
`,
    )
  })

  test('a message that only counts on is the same message', () => {
    const { tell, take } = reporterFor()
    tell(
      started(1, 'pg2', 'take a base backup from pg1'),
      progress(1, 'it has replayed 0/3000148 of 1/5'),
      progress(1, 'it has replayed 0/A000148 of 1/F00D'),
    )
    expect(take()).toBe('… pg2  take a base backup from pg1  it has replayed 0/3000148 of 1/5\n')
  })

  test('a plan is left to its own report, but not what it is refused for', () => {
    const { tell, take } = reporterFor()
    tell(
      finished(1, 'pg1', 'look', 'satisfied', 'so'),
      finished(2, 'pg1', 'start PostgreSQL', 'planned', 'it is stopped'),
      finished(3, 'pg1', 'require a free port', 'failed', 'port 5432 is taken'),
    )
    expect(take()).toBe('✗ pg1  require a free port  (port 5432 is taken)\n')
  })

  test('notes, warnings and the wait for a lock have lines of their own', () => {
    const { tell, take } = reporterFor()
    tell(
      { type: 'waiting', message: 'dba@control1 (pid 7) holds the cluster' },
      { type: 'note', message: 'the old\x1b[2J primary answers again' },
      warning,
    )
    expect(take()).toBe(
      `waiting: dba@control1 (pid 7) holds the cluster
note: the old primary answers again
warning: the clocks differ
hint: Start an NTP client.
`,
    )
  })

  test('a step that never finished is named in the end', () => {
    const { tell, take, finish } = reporterFor()
    tell(started(1, 'pg2', 'start PostgreSQL'))
    finish()
    finish()
    expect(take()).toBe('… pg2  start PostgreSQL  (not finished)\n')
  })
})

test('quiet shows only warnings and failures, on a terminal too', () => {
  const { tell, take, finish } = reporterFor({ isQuiet: true, isTerminal: true })
  tell(
    { type: 'note', message: 'something' },
    started(1, 'pg2', 'take a base backup from pg1'),
    progress(1, 'streaming', GiB),
    warning,
    finished(1, 'pg2', 'take a base backup from pg1', 'failed', 'no space left', 2_000),
    started(2, 'pg3', 'start PostgreSQL'),
  )
  finish()
  expect(take()).toBe(
    `warning: the clocks differ
hint: Start an NTP client.
✗ pg2  take a base backup from pg1  (no space left)  2 s
`,
  )
})

describe('on a terminal', () => {
  const up = (lines: number) => `\x1b[${lines}A\r\x1b[J`

  test('running steps are a live block below the lines that stay', () => {
    const { tell, take, clock, finish } = reporterFor({ isTerminal: true })
    tell(started(1, 'pg2', 'take a base backup from pg1'))
    expect(take()).toBe('… pg2  take a base backup from pg1\n')
    tell(started(2, 'pg3', 'start PostgreSQL'))
    expect(take()).toBe(`${up(1)}… pg2  take a base backup from pg1\n… pg3  start PostgreSQL\n`)
    clock.now = 100
    tell(progress(1, 'streaming', 1.2 * GiB))
    expect(take()).toBe(
      `${up(2)}… pg2  take a base backup from pg1  1.2 GiB of 3.0 GiB (40 %), 310 MiB/s, 6 s left\n… pg3  start PostgreSQL\n`,
    )
    tell(finished(2, 'pg3', 'start PostgreSQL', 'applied', 'it runs with pid 123', 400))
    expect(take()).toBe(
      `${up(2)}✓ pg3  start PostgreSQL  (it runs with pid 123)  0.4 s\n… pg2  take a base backup from pg1  1.2 GiB of 3.0 GiB (40 %), 310 MiB/s, 6 s left\n`,
    )
    tell(finished(1, 'pg2', 'take a base backup from pg1', 'applied'))
    expect(take()).toBe(`${up(1)}✓ pg2  take a base backup from pg1\n`)
    finish()
    expect(take()).toBe('')
  })

  test('it is not redrawn faster than the eye can see', () => {
    const { tell, take, clock } = reporterFor({ isTerminal: true })
    tell(started(1, 'pg2', 'take a base backup from pg1'))
    take()
    clock.now = 79
    tell(progress(1, 'starting'))
    expect(take()).toBe('')
    clock.now = 80
    tell(progress(1, 'streaming'))
    expect(take()).toBe(`${up(1)}… pg2  take a base backup from pg1  streaming\n`)
  })

  test('a line never reaches the edge: the title is shortened before the progress is', () => {
    const { tell, take, clock } = reporterFor({ isTerminal: true, width: 80 })
    tell(started(1, 'pg2', 'take a base backup from pg1'))
    take()
    clock.now = 100
    tell(progress(1, 'streaming', 1.2 * GiB))
    const line = take().slice(up(1).length, -1)
    expect(line).toBe('… pg2  take a base backup from…  1.2 GiB of 3.0 GiB (40 %), 310 MiB/s, 6 s left')
    expect(line).toHaveLength(79)
  })

  test('a block higher than the screen is not drawn', () => {
    const { tell, take } = reporterFor({ isTerminal: true })
    for (let n = 1; n <= 13; n += 1) tell(started(n, `pg${n}`, 'start PostgreSQL'))
    expect(take().split(up(11)).at(-1)?.split('\n').slice(9)).toEqual([
      '… pg10  start PostgreSQL',
      '… and 3 more',
      '',
    ])
  })

  test('in the end nothing but lines that stay is left', () => {
    const { tell, take, finish } = reporterFor({ isTerminal: true })
    tell(started(1, 'pg2', 'start PostgreSQL'))
    take()
    finish()
    expect(take()).toBe(`${up(1)}… pg2  start PostgreSQL  (not finished)\n`)
    tell(progress(1, 'a last word'))
    finish()
    expect(take()).toBe('')
  })
})
