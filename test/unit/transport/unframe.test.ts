import { describe, expect, test } from 'vitest'
import { createUnframer } from '../../../src/transport/unframe.ts'

const marker = '0123456789abcdef'

function unframe(...chunks: readonly string[]) {
  const unframer = createUnframer(marker)
  const output = Buffer.concat(chunks.map((chunk) => unframer.push(Buffer.from(chunk)))).toString()
  return { output, words: unframer.words, noise: unframer.noise }
}

describe('taking the frame away', () => {
  test.each<readonly [string, readonly string[], string]>([
    ['nothing before it', [`${marker} 1 2\nout`], ''],
    ['a banner before it', [`Welcome!\n${marker} 1 2\nout`], 'Welcome!\n'],
    ['noise without a line end before it', [`prompt> ${marker} 1 2\nou`, 't'], 'prompt> '],
    ['the marker in pieces', ['noise\n0123', '456789abc', 'def 1', ' 2', '\no', 'ut'], 'noise\n'],
    ['every byte alone', [...`n\n${marker} 1 2\nout`], 'n\n'],
  ])('%s', (_name, chunks, noise) => {
    expect(unframe(...chunks)).toEqual({ output: 'out', words: ['1', '2'], noise })
  })

  test('output that looks like the marker stays', () => {
    expect(unframe(`${marker}\n${marker} 3\n`)).toMatchObject({ output: `${marker} 3\n`, words: [''] })
  })

  test('without a marker all is noise, of which the end is kept', () => {
    const { output, words, noise } = unframe('x'.repeat(200_000), 'the end')
    expect(output).toBe('')
    expect(words).toBeUndefined()
    expect(noise).toMatch(/^x{60000,}the end$/)
  })

  test('bytes after it are not touched', () => {
    const unframer = createUnframer(marker)
    const bytes = Buffer.from([0, 255, 0xc3, 10, 13])
    expect(unframer.push(Buffer.concat([Buffer.from(`${marker}\n`), bytes]))).toEqual(bytes)
    expect(unframer.push(bytes)).toEqual(bytes)
  })
})
