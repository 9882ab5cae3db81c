import { describe, expect, test } from 'vitest'
import { describeRoom, hintForRoom, type Place, roomFor, tooSmall } from '../../../src/cluster/room.ts'

const mebibyte = 2 ** 20
const size = {
  dataBytes: 100 * mebibyte,
  tablespaces: [
    { location: '/ts/a', bytes: 1000 * mebibyte },
    { location: '/ts/b', bytes: 2000 * mebibyte },
  ],
}
const place = (path: string, fileSystem: string, free: number, begun = 0): Place => ({
  ...{ path, fileSystem, freeBytes: free * mebibyte, begunBytes: begun * mebibyte },
})
const told = (places: readonly Place[]) => tooSmall(roomFor(size, '/data', places)).map(describeRoom)

describe('whether a copy fits', () => {
  test.each<[string, readonly Place[], readonly string[]]>([
    [
      'each tablespace is counted where it lies, not where the data directory is',
      [place('/data', 'sda', 170), place('/ts/a', 'sdb', 1_051), place('/ts/b', 'sdc', 2_101)],
      [],
    ],
    [
      'a tablespace whose own disk is too small',
      [place('/data', 'sda', 9_000), place('/ts/a', 'sdb', 900), place('/ts/b', 'sdc', 9_000)],
      ['1050 MiB are needed and 900 MiB are free where /ts/a is'],
    ],
    [
      'what lies on one disk is added up',
      [place('/data', 'sda', 2_000), place('/ts/a', 'sda', 2_000), place('/ts/b', 'sdb', 9_000)],
      [],
    ],
    [
      'and may be too much together',
      [place('/data', 'sda', 1_200), place('/ts/a', 'sda', 1_200), place('/ts/b', 'sdb', 9_000)],
      ['1219 MiB are needed and 1200 MiB are free where /data, /ts/a are'],
    ],
    [
      'what an earlier try left makes room for the next',
      [place('/data', 'sda', 100, 69), place('/ts/a', 'sdb', 60, 990), place('/ts/b', 'sdc', 2_101)],
      [],
    ],
    ['a folder of which nothing is known', [place('/ts/b', 'sdc', 2_101)], []],
  ])('%s', (_, places, expected) => {
    expect(told(places)).toEqual(expected)
  })

  test('another data_dir is advised only where it would help', () => {
    const [room] = roomFor(size, '/data', [place('/ts/a', 'sdb', 900)])
    expect(hintForRoom(room!, '/data')).not.toContain('data_dir')
    const [own] = roomFor(size, '/data', [place('/data', 'sda', 1)])
    expect(hintForRoom(own!, '/data')).toContain('data_dir')
  })
})
