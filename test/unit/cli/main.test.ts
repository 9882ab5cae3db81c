import { EventEmitter } from 'node:events'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { describe, expect, test } from 'vitest'
import { commands } from '../../../src/cli/commands/index.ts'
import { main } from '../../../src/cli/main.ts'

interface Ran {
  readonly exitCode: number
  readonly out: string
  readonly err: string
}

/** A process that was started with these words, in an empty folder. */
async function replctl(...words: readonly string[]): Promise<Ran> {
  const written = { out: '', err: '' }
  const stream = (name: 'out' | 'err') =>
    Object.assign(new EventEmitter(), {
      isTTY: false,
      write: (text: string) => {
        written[name] += text
        return true
      },
    })
  const env = { HOME: '/nonexistent/home', XDG_CONFIG_HOME: '/nonexistent/config' }
  const fake = Object.assign(new EventEmitter(), {
    argv: ['node', 'replctl', ...words],
    env,
    pid: 1,
    cwd: () => '/nonexistent/work',
    stdout: stream('out'),
    stderr: stream('err'),
    exit: () => {
      throw new Error('exited')
    },
  })
  const exitCode = await main(fake as unknown as NodeJS.Process)
  return { exitCode, ...written }
}

describe('usage errors: exit code 2, said on standard error, nothing on standard output', () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ['statsu', /unknown command 'statsu'[\s\S]*Did you mean status\?/],
    ['frobnicate', /unknown command 'frobnicate'/],
    ['status --jsn', /unknown option '--jsn'[\s\S]*Did you mean --json\?/],
    ['add-standby', /missing required argument 'node'/],
    ['status extra', /too many arguments/],
    ['promote --method foo', /'foo' is invalid\. Allowed choices are/],
    ['status --timeout soon', /--timeout: "soon" is not a duration[\s\S]*For example 90s/],
    ['--timeout -1 status', /--timeout: "-1" is not a duration/],
    ['status --config', /argument missing/],
    ['', /Usage: replctl/],
    ['sandbox', /Usage: replctl sandbox/],
    ['init', /Usage: replctl init/],
    ['init secondary', /unknown command 'secondary'/],
    ['status', /no inventory[\s\S]*replctl new/],
    ['-c /nonexistent/file.yaml verify', /no inventory \/nonexistent\/file\.yaml[\s\S]*--config/],
  ]
  test.each(cases)('replctl %s', async (line, expected) => {
    const ran = await replctl(...line.split(' ').filter(Boolean))
    expect(ran).toMatchObject({ exitCode: 2, out: '' })
    expect(ran.err).toMatch(expected)
  })
})

describe('with --json there is exactly one document on standard output, whatever happens', () => {
  const cases: readonly (readonly [string, string, string])[] = [
    ['--json', '', 'usage'],
    ['statsu --json', 'statsu', 'usage'],
    ['sandbox --json', 'sandbox', 'usage'],
    ['add-standby --json', 'add-standby', 'usage'],
    ['promote --method foo --json', 'promote', 'usage'],
    ['--json init primary --timeout x', 'init primary', 'usage'],
    ['--json -c file.yaml sandbox status --timeout x', 'sandbox status', 'usage'],
    ['status --json --nope', 'status', 'usage'],
    ['--json status', 'status', 'inventory-missing'],
    ['verify pg1 --json', 'verify', 'inventory-missing'],
    ['init primary --json --dry-run', 'init primary', 'inventory-missing'],
  ]
  test.each(cases)('replctl %s', async (line, command, code) => {
    const { exitCode, out } = await replctl(...line.split(' '))
    expect(exitCode).toBe(2)
    expect(out.endsWith('\n')).toBe(true)
    const document = JSON.parse(out)
    expect(document).toMatchObject({
      command,
      cluster: null,
      ok: false,
      exit_code: 2,
      changed: false,
      result: null,
    })
    expect(document.problems).toMatchObject([{ code, severity: 'error' }])
    expect(document.problems[0].hint).toMatch(/\w/)
    expect(document.elapsed_ms).toEqual(expect.any(Number))
  })
})

describe('version and help', () => {
  test.each(['--version', '-V', '--json --version', '--no-color -V', 'status --version'])(
    'replctl %s prints the version only',
    async (line) => {
      const ran = await replctl(...line.split(' '))
      expect(ran).toMatchObject({ exitCode: 0, err: '' })
      expect(ran.out).toMatch(/^\d+\.\d+\.\d+\n$/)
    },
  )

  test('--help lists every command that works, and no other', async () => {
    const { exitCode, out, err } = await replctl('--help')
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' })
    const listed = [...out.matchAll(/^ {2}([a-z][a-z-]+)[ |]/gm)].map((match) => match[1]!)
    const known = new Set(commands.map(({ name }) => name.split(' ')[0]!))
    expect(new Set(listed.filter((name) => name !== 'help'))).toEqual(known)
    expect(out).toContain('Exit codes: 0 done')
    expect(out).toContain('Start here:')
  })

  test.each(commands.map((spec) => [spec.name, spec] as const))('%s explains itself', async (name, spec) => {
    const { exitCode, out, err } = await replctl(...name.split(' '), '--help')
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' })
    expect(out).toContain(`Usage: replctl ${name} `)
    expect(out).toContain('Examples:')
    for (const example of spec.examples) expect(out).toContain(`  ${example}`)
    for (const { flags } of spec.options) expect(out).toContain(flags)
    expect(spec.examples.join('\n')).toContain(`replctl ${name}`)
    expect(typeof (await spec.load()).run).toBe('function')
  })
})

test('start-up, --version and --help load no library but the one that reads the command line', async () => {
  const root = fileURLToPath(new URL('../../..', import.meta.url))
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['src/cli/main.ts'],
    bundle: true,
    splitting: true,
    outdir: 'unused',
    write: false,
    metafile: true,
    format: 'esm',
    platform: 'node',
    packages: 'external',
  })
  const entry = Object.keys(metafile.outputs).find(
    (name) => metafile.outputs[name]?.entryPoint === 'src/cli/main.ts',
  )!
  const loaded = new Set<string>()
  const packages = new Set<string>()
  const follow = (name: string): void => {
    if (loaded.has(name)) return
    loaded.add(name)
    for (const { path, kind, external } of metafile.outputs[name]?.imports ?? []) {
      if (kind === 'dynamic-import') continue
      if (external === true) packages.add(path)
      else follow(path)
    }
  }
  follow(entry)
  expect([...packages].filter((path) => !path.startsWith('node:')).toSorted()).toEqual(['commander'])
})
