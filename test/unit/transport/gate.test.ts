import { describe, expect, test } from 'vitest'
import { createGate } from '../../../src/transport/gate.ts'
import type { LaunchKind } from '../../../src/transport/piped-process.ts'

const never = new AbortController().signal

/** Enters and tells whether it had to wait. */
async function enter(gate: ReturnType<typeof createGate>, kind: LaunchKind, signal = never) {
  let release: (() => void) | undefined
  const entering = gate.enter(kind, signal).then((leave) => {
    release = leave
    return leave
  })
  entering.catch(() => {})
  await Promise.resolve()
  await Promise.resolve()
  return { entering, isInside: () => release !== undefined, leave: () => release?.() }
}

describe('the gate', () => {
  test('lets so many in, the next when one leaves, in order', async () => {
    const gate = createGate(2)
    const first = await enter(gate, 'short')
    const second = await enter(gate, 'short')
    const third = await enter(gate, 'short')
    const fourth = await enter(gate, 'short')
    expect([first, second, third, fourth].map((one) => one.isInside())).toEqual([true, true, false, false])
    second.leave()
    await third.entering
    expect(fourth.isInside()).toBe(false)
    third.leave()
    third.leave()
    await fourth.entering
  })

  test('knows how many wait', async () => {
    const gate = createGate(1)
    const inside = await enter(gate, 'short')
    const waiting = await enter(gate, 'short')
    expect(gate.waiting()).toBe(1)
    inside.leave()
    await waiting.entering
    expect(gate.waiting()).toBe(0)
  })

  test('never keeps an urgent one waiting', async () => {
    const gate = createGate(1)
    await enter(gate, 'short')
    expect((await enter(gate, 'urgent')).isInside()).toBe(true)
  })

  test('lets one in when only long ones fill it: they may stay for ever', async () => {
    const gate = createGate(2)
    await enter(gate, 'long')
    await enter(gate, 'long')
    const short = await enter(gate, 'short')
    expect(short.isInside()).toBe(true)
    expect((await enter(gate, 'short')).isInside()).toBe(false)
  })

  test('forgets one that gives up waiting', async () => {
    const gate = createGate(1)
    const inside = await enter(gate, 'short')
    const aborter = new AbortController()
    const impatient = await enter(gate, 'short', aborter.signal)
    const patient = await enter(gate, 'short')
    aborter.abort(new Error('no more'))
    await expect(impatient.entering).rejects.toThrow('no more')
    inside.leave()
    await patient.entering
    await expect(gate.enter('short', aborter.signal)).rejects.toThrow('no more')
  })

  test('learns that the host takes fewer', async () => {
    const gate = createGate(8)
    const places = await Promise.all([enter(gate, 'short'), enter(gate, 'long'), enter(gate, 'short')])
    places[2]!.leave()
    expect(gate.lower()).toBe(true)
    const waiting = await enter(gate, 'short')
    expect(waiting.isInside()).toBe(false)
    places[0]!.leave()
    await waiting.entering
    waiting.leave()
    expect(gate.lower()).toBe(false)
  })
})
