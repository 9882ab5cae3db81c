import { describe, expect, it } from 'vitest'
import { compareHashes } from '../../../src/node/hash-backup.ts'

const files = [
  { name: 'backup_manifest', bytes: 50, sha256: 'aa' },
  { name: 'base.tar.zst', bytes: 1000, sha256: 'bb' },
]
const sound = 'aa backup_manifest\nbb base.tar.zst\ncc backup.json\ndd check.json\n'

describe('P-34: what was read of a stored backup', () => {
  it.each([
    ['nothing wrong', sound, []],
    [
      'other content',
      sound.replace('bb', 'b0'),
      ['base.tar.zst is damaged: its content is not what was verified'],
    ],
    ['a missing file', sound.replace('bb base.tar.zst\n', ''), ['base.tar.zst is missing']],
    ['a file that cannot be read', sound.replace('bb', '-'), ['base.tar.zst cannot be read']],
    ['an extra file', `${sound}ee a core\n`, ['a core is not part of the backup']],
  ])('%s', (_what, output, damage) => {
    expect(compareHashes(output, files)).toEqual(damage)
  })
})
