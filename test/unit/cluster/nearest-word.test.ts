import { describe, expect, test } from 'vitest'
import { countEdits, didYouMean, nearestWord } from '../../../src/cluster/nearest-word.ts'

describe('the nearest word', () => {
  test.each([
    ['hots', ['address', 'host', 'port'], 'host'],
    ['clutser', ['cluster', 'nodes'], 'cluster'],
    ['identiy_file', ['identity_file', 'config_file'], 'identity_file'],
    ['PG1', ['pg1', 'pg2'], 'pg1'],
    ['pg22', ['pg1', 'pg2'], 'pg2'],
    ['banana', ['host', 'port'], undefined],
    ['x', ['y'], undefined],
    ['', ['a'], undefined],
    ['host', [], undefined],
  ])('to %j in %j is %j', (word, candidates, expected) => {
    expect(nearestWord(word, candidates)).toBe(expected)
  })

  test('is offered as a question', () => {
    expect(didYouMean('hots', ['host'])).toBe('Did you mean "host"?')
    expect(didYouMean('banana', ['host'])).toBeUndefined()
  })
})

test.each([
  ['', '', 0],
  ['', 'abc', 3],
  ['host', 'host', 0],
  ['hots', 'host', 1],
  ['hst', 'host', 1],
  ['hosst', 'host', 1],
  ['kitten', 'sitting', 3],
])('from %j to %j it takes %d edits', (from, to, expected) => {
  expect(countEdits(from, to)).toBe(expected)
})
