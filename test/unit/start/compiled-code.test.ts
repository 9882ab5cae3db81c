import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Script } from 'node:vm'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { compiledCodeFolder, loadBundle } from '../../../src/start/compiled-code.ts'

const uid = process.geteuid?.() ?? 0
let dir: string
let file: string
let folder: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'replctl-compiled-'))
  file = join(dir, 'bundle.cjs')
  folder = join(dir, 'cache', 'replctl')
  writeBundle('one')
})

afterEach(() => rmSync(dir, { recursive: true, force: true }))

const writeBundle = (word: string): void =>
  writeFileSync(
    file,
    `exports.word=()=>'${word}';exports.join=(...parts)=>require('node:path').join(...parts);exports.here=[__filename,__dirname]`,
  )

type Exports = {
  word(): string
  join(...parts: string[]): string
  here: string[]
}
const load = (on: { folder?: string | null; uid?: number } = {}) => {
  const bundle = loadBundle({ file, folder, uid, ...on })
  return { ...bundle, exports: bundle.exports as Exports }
}
const kept = (): string => join(folder, readdirSync(folder)[0] ?? 'nothing')
const header = () => JSON.parse(readFileSync(kept(), 'latin1').split('\n')[0] ?? '')

describe('loadBundle', () => {
  it('runs a CommonJS bundle where it lies', () => {
    const { exports } = load({ folder: null })
    expect([exports.word(), exports.join('a', 'b')]).toEqual(['one', 'a/b'])
    expect(exports.here).toEqual([file, dir])
  })

  it('keeps what was compiled for the next run, which takes it', () => {
    const first = load()
    first.exports.word()
    first.keep('status')
    expect(header().kinds).toEqual(['status'])
    const before = statSync(kept())
    const second = load()
    expect(second.exports.word()).toBe('one')
    // Had it been refused, it would be written anew.
    second.keep('status')
    expect(statSync(kept()).mtimeMs).toBe(before.mtimeMs)
    expect(before.mode & 0o777).toBe(0o600)
  })

  it('adds what another kind of run compiled', () => {
    const first = load()
    first.exports.word()
    first.keep('status')
    const second = load()
    second.exports.join('a')
    second.keep('promote')
    expect(header().kinds).toEqual(['status', 'promote'])
    expect(readdirSync(folder)).toHaveLength(1)
    expect(load().exports.word()).toBe('one')
  })

  it('never runs what another bundle compiled to, be it of the same length', () => {
    const first = load()
    first.exports.word()
    first.keep('status')
    writeBundle('two')
    const second = load()
    expect(second.exports.word()).toBe('two')
    second.keep('status')
    expect(load().exports.word()).toBe('two')
  })

  it('counts what is not whole as absent, and writes it anew', () => {
    load().keep('status')
    const whole = readFileSync(kept())
    const end = whole.indexOf(10)
    const flipped = Buffer.from(whole)
    flipped[end + 40] = (flipped[end + 40] ?? 0) ^ 1
    for (const broken of [whole.subarray(0, -1), whole.subarray(0, end), flipped, Buffer.from('{}\n'), '']) {
      writeFileSync(kept(), broken)
      const next = load()
      expect(next.exports.word()).toBe('one')
      next.keep('status')
      expect(header().kinds).toEqual(['status'])
      expect(readFileSync(kept()).length).toBeGreaterThan(end + 40)
    }
  })

  it('takes nothing that another user could have written', () => {
    load().keep('status')
    chmodSync(kept(), 0o620)
    const next = load()
    expect(next.exports.word()).toBe('one')
    next.keep('promote')
    // Had it been taken, both would stand there.
    expect(header().kinds).toEqual(['promote'])
    const before = readFileSync(kept())
    const stranger = load({ uid: uid + 1 })
    expect(stranger.exports.word()).toBe('one')
    stranger.keep('status')
    expect(readFileSync(kept())).toEqual(before)
  })

  it('takes and writes nothing in a folder that another user may write to', () => {
    load().keep('status')
    const before = readFileSync(kept())
    chmodSync(folder, 0o775)
    const next = load()
    expect(next.exports.word()).toBe('one')
    next.keep('promote')
    expect(readFileSync(kept())).toEqual(before)
    expect(readdirSync(folder)).toHaveLength(1)
  })

  it('neither follows a link nor waits at a pipe', () => {
    load().keep('status')
    const [path, other] = [kept(), join(dir, 'other')]
    writeFileSync(other, 'of somebody')
    symlinkSync(other, `${path}.new`)
    load().keep('promote')
    expect(readFileSync(other, 'utf8')).toBe('of somebody')
    expect(header().kinds).toEqual(['status', 'promote'])
    rmSync(path)
    execFileSync('mkfifo', ['-m', '600', path])
    expect(load().exports.word()).toBe('one')
  })

  it('a run that has let go of functions takes nothing away from the others', () => {
    const first = load()
    first.exports.word()
    first.keep('status')
    const before = readFileSync(kept())
    const spy = vi.spyOn(Script.prototype, 'createCachedData').mockReturnValue(Buffer.alloc(8))
    load().keep('add-standby')
    spy.mockRestore()
    expect(readFileSync(kept())).toEqual(before)
    expect(readdirSync(folder)).toHaveLength(1)
  })

  it('runs also where nothing can be kept', () => {
    writeFileSync(join(dir, 'cache'), 'a file where the folder should be')
    const bundle = load()
    bundle.keep('status')
    expect(bundle.exports.word()).toBe('one')
    load({ folder: null }).keep('status')
    expect(existsSync(folder)).toBe(false)
  })
})

describe('compiledCodeFolder', () => {
  it.each([
    ['$XDG_CACHE_HOME', { XDG_CACHE_HOME: '/c', HOME: '/home/dba' }, 1000, '/c/replctl'],
    [
      'a relative $XDG_CACHE_HOME counts as unset',
      { XDG_CACHE_HOME: 'c', HOME: '/home/dba' },
      1000,
      '/home/dba/.cache/replctl',
    ],
    ['root, whose $HOME sudo kept', { HOME: '/home/dba' }, 0, '/var/cache/replctl'],
    ['no home', {}, 1000, null],
    ['Node.js told to keep none', { HOME: '/home/dba', NODE_DISABLE_COMPILE_CACHE: '1' }, 1000, null],
  ])('%s', (_, env, user, expected) => {
    expect(compiledCodeFolder(env, user)).toBe(expected)
  })
})
