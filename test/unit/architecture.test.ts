import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../../src', import.meta.url))

/** Folder (or file at the top) of src/ → what it may import beside itself. Types count as well. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  'errors.ts': [],
  'command.ts': [],
  start: [],
  postgres: ['command.ts', 'errors.ts'],
  cluster: ['postgres', 'command.ts', 'errors.ts'],
  config: ['cluster', 'postgres', 'command.ts', 'errors.ts'],
  transport: ['cluster', 'command.ts', 'errors.ts'],
  node: ['transport', 'postgres', 'cluster', 'command.ts', 'errors.ts'],
  engine: ['node', 'cluster', 'command.ts', 'errors.ts'],
  steps: ['engine', 'node', 'cluster', 'postgres', 'command.ts', 'errors.ts'],
  runbooks: ['steps', 'engine', 'cluster', 'postgres'],
  report: ['engine', 'cluster', 'errors.ts'],
  cli: [
    ...['runbooks', 'steps', 'engine', 'node', 'transport', 'config', 'cluster', 'postgres', 'report'],
    ...['command.ts', 'errors.ts'],
  ],
}

/** Packages with one home. */
const homes: Readonly<Record<string, readonly string[]>> = {
  commander: ['cli'],
  '@bomb.sh/tab': ['cli'],
  '@bomb.sh/tab/commander': ['cli'],
  '@clack/prompts': ['cli'],
  chalk: ['report'],
  'cli-table3': ['report'],
  ssh2: ['transport'],
  'ssh-config': ['transport'],
  execa: ['transport', 'cli'],
  pg: ['node'],
  yaml: ['config', 'cli'],
  zod: ['config'],
  liquidjs: ['postgres'],
  '@mongodb-js/saslprep': ['postgres'],
}

const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))
const roomOf = (file: string): string => file.split('/')[0] ?? file

function importsOf(file: string): { readonly path: string; readonly isType: boolean }[] {
  const text = readFileSync(join(root, file), 'utf8')
  const statements = text.matchAll(
    /^(import|export)( type)?\b[^'"`;]*?from '([^']+)'|\bimport\('([^']+)'\)/gm,
  )
  return [...statements].map((match) => ({
    path: match[3] ?? match[4] ?? '',
    isType: match[2] !== undefined,
  }))
}

describe('the map of src/', () => {
  it('has no room that the map does not know', () => {
    expect([...new Set(files.map(roomOf))].toSorted()).toEqual(Object.keys(mayImport).toSorted())
  })

  it('is imported one way only', () => {
    const wrong = files.flatMap((file) =>
      importsOf(file)
        .filter(({ path }) => path.startsWith('.'))
        .map(({ path }) => relative(root, resolve(root, dirname(file), path)))
        .filter(
          (target) => roomOf(target) !== roomOf(file) && !mayImport[roomOf(file)]?.includes(roomOf(target)),
        )
        .map((target) => `${file} imports ${target}`),
    )
    expect(wrong).toEqual([])
  })

  it('gives each package one home', () => {
    const wrong = files.flatMap((file) =>
      importsOf(file)
        .filter(({ path }) => !path.startsWith('.') && !path.startsWith('node:'))
        .filter(({ path }) => homes[path]?.includes(roomOf(file)) !== true)
        .map(({ path }) => `${file} imports ${path}`),
    )
    expect(wrong).toEqual([])
  })

  it('lets only cli/ read process', () => {
    const reads = /\bprocess\.(env|argv|cwd|exit\(|stdin\b|platform|pid|getuid)/
    const own = files.filter((file) => roomOf(file) !== 'cli' && !/\bprocess: /.test(code(file)))
    const wrong = own.filter((file) => reads.test(code(file)))
    expect(wrong).toEqual([])
  })

  it('keeps the pure rooms free of I/O, clock and randomness', () => {
    const impure =
      /node:(fs|net|child_process|os|dgram|http|timers)|Date\.now|performance\.now|Math\.random|setTimeout/
    const pure = ['postgres', 'cluster', 'errors.ts', 'command.ts']
    expect(files.filter((file) => pure.includes(roomOf(file)) && impure.test(code(file)))).toEqual([])
  })

  it('has runbooks without await and SQL', () => {
    const wrong = files.filter((file) => roomOf(file) === 'runbooks' && /\bawait\s|SELECT /.test(code(file)))
    expect(wrong).toEqual([])
  })
})

/** A file's text without its comments. */
function code(file: string): string {
  return readFileSync(join(root, file), 'utf8')
    .replaceAll(/\/\*[\s\S]*?\*\//g, '')
    .replaceAll(/^\s*\/\/.*$/gm, '')
}
