import { execFileSync, spawn } from 'node:child_process'
import { EventEmitter } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import type { CommandSpec } from '../../../src/cli/command-spec.ts'
import { commands } from '../../../src/cli/commands/index.ts'
import { main } from '../../../src/cli/main.ts'

const passwd = vi.hoisted(() => ({ hasEntry: true }))
vi.mock('node:os', async (original) => {
  const os = await original<typeof import('node:os')>()
  const userInfo = () => {
    if (passwd.hasEntry) return os.userInfo()
    throw Object.assign(new Error('A system error occurred: uv_os_get_passwd'), { code: 'ENOENT' })
  }
  return { ...os, userInfo }
})
afterEach(() => {
  passwd.hasEntry = true
})

interface Ran {
  readonly exitCode: number
  readonly out: string
  readonly err: string
}

interface Started {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: () => string
  /** What writing to standard output fails with. */
  readonly outFault?: string
}

/** A process that was started with these words, in an empty folder. */
function start(words: readonly string[], { env = {}, cwd, outFault }: Started = {}) {
  const written = { out: '', err: '' }
  const stream = (name: 'out' | 'err') => {
    const made = Object.assign(new EventEmitter(), {
      isTTY: false,
      write: (text: string, done?: (error?: Error) => void) => {
        const fault = name === 'out' && outFault !== undefined ? fail(outFault) : undefined
        if (fault === undefined) written[name] += text
        process.nextTick(() => {
          done?.(fault)
          if (fault !== undefined) made.emit('error', fault)
        })
        return true
      },
    })
    return made
  }
  const fail = (code: string) => Object.assign(new Error(`${code}: write`), { code })
  let exited: (exitCode: number) => void = () => undefined
  const exit = new Promise<number>((resolve) => {
    exited = resolve
  })
  const fake = Object.assign(new EventEmitter(), {
    argv: ['node', 'replctl', ...words],
    env: { HOME: '/nonexistent/home', XDG_CONFIG_HOME: '/nonexistent/config', ...env },
    pid: 1,
    geteuid: () => 12345,
    cwd: cwd ?? (() => '/nonexistent/work'),
    stdout: stream('out'),
    stderr: stream('err'),
    exit: (exitCode: number) => exited(exitCode),
  })
  return { fake, exit, written, running: main(fake as unknown as NodeJS.Process) }
}

async function replctl(...words: readonly string[]): Promise<Ran> {
  return await run(words)
}

async function run(words: readonly string[], started: Started = {}): Promise<Ran> {
  const { running, written } = start(words, started)
  const exitCode = await running
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
    ['status --timeout 0', /--timeout: "0" is no time at all/],
    ['status --timeout 30d', /--timeout: "30d" is too long[\s\S]*at most 10 days/],
    ['promote --timeout 999h', /--timeout: "999h" is too long/],
    ['status --config', /argument missing/],
    ['', /Usage: replctl/],
    ['sandbox', /Usage: replctl sandbox/],
    ['init', /Usage: replctl init/],
    ['help statsu', /^error: unknown command 'statsu'\n\(Did you mean status\?\)\n\(see --help\)\n$/],
    ['help backup lits', /unknown command 'lits'[\s\S]*Did you mean list\?/],
    ['help status pg1', /unknown command 'pg1'/],
    ['help frobnicate', /^error: unknown command 'frobnicate'\n\(see --help\)\n$/],
    ['init secondary', /unknown command 'secondary'/],
    ['status', /no inventory[\s\S]*replctl new/],
    ['new shop --hosts a --postgres-version 10', /PostgreSQL 10 is too old[\s\S]*11 or newer/],
    ['new shop --hosts a --postgres-version 15.4', /"15\.4" is not a major version/],
    ['verify --junit /', /--junit: cannot write \/[\s\S]*It is a folder/],
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
    ['backup list --nope --json', 'backup list', 'usage'],
    ['backup verify --json', 'backup verify', 'inventory-missing'],
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

test('an error that nobody waited for is told with the name of the command, without its flags', async () => {
  const { fake, exit, written, running } = start(['backup', 'list', '--json', '--help'])
  await running
  written.out = ''
  fake.emit('uncaughtException', new Error('from nowhere'))
  // A second one does not cut the answer off.
  fake.emit('uncaughtException', new Error('from nowhere as well'))
  expect(await exit).toBe(1)
  expect(JSON.parse(written.out)).toMatchObject({ command: 'backup list', ok: false, exit_code: 1 })
})

describe('$REPLCTL_TIMEOUT', () => {
  test.each(['', '90s', '1h'])('"%s" is fine', async (value) => {
    const ran = await run(['status'], { env: { REPLCTL_TIMEOUT: value } })
    expect(ran.err).toContain('no inventory')
  })

  test('is named where it cannot be used', async () => {
    const { exitCode, err } = await run(['status'], { env: { REPLCTL_TIMEOUT: 'soon' } })
    expect(exitCode).toBe(2)
    expect(err).toContain('$REPLCTL_TIMEOUT: "soon" is not a duration')
  })

  test('gives way to the flag, wherever that stands', async () => {
    for (const words of [
      ['--timeout', '5s', 'status'],
      ['status', '--timeout', '5s'],
    ]) {
      const { err } = await run(words, { env: { REPLCTL_TIMEOUT: 'soon' } })
      expect(err).toContain('no inventory')
    }
  })

  test('is told in the help of every command', async () => {
    expect((await replctl('status', '--help')).out).toContain('REPLCTL_TIMEOUT')
  })
})

describe('a user without an entry in /etc/passwd, as in a container', () => {
  test.each(['--help', 'schema', '--version'])('replctl %s works', async (line) => {
    passwd.hasEntry = false
    const { exitCode, err } = await replctl(line)
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' })
  })

  test('is answered with one JSON document', async () => {
    passwd.hasEntry = false
    const { exitCode, out } = await replctl('status', '--json')
    expect(exitCode).toBe(2)
    expect(JSON.parse(out).problems).toMatchObject([{ code: 'inventory-missing' }])
  })
})

test('a working folder that is gone is an answer, no crash', async () => {
  const cwd = () => {
    throw Object.assign(new Error('ENOENT: uv_cwd'), { code: 'ENOENT' })
  }
  const { exitCode, out } = await run(['status', '--json'], { cwd, env: { PWD: '/gone' } })
  expect(exitCode).toBe(2)
  expect(JSON.parse(out).problems[0].detail).toContain('/gone/replctl.yaml')
})

describe('an answer that could not be written', () => {
  test.each([['schema'], ['--version'], ['--help']])(
    'replctl %s to a full disk ends with 1',
    async (line) => {
      const { exitCode, err } = await run([line], { outFault: 'ENOSPC' })
      expect(exitCode).toBe(1)
      expect(err).toMatch(/^error: could not write to standard output: ENOSPC/m)
    },
  )

  test('keeps the exit code of what went wrong before', async () => {
    const { exitCode, err } = await run(['status', '--json'], { outFault: 'ENOSPC' })
    expect(exitCode).toBe(2)
    expect(err).toContain('could not write to standard output')
  })

  test('is no error where the reader has read enough', async () => {
    expect(await run(['schema'], { outFault: 'EPIPE' })).toMatchObject({ exitCode: 0, err: '' })
  })
})

describe('the cluster of an inventory that lies around', () => {
  const folder = mkdtempSync(join(tmpdir(), 'replctl-main-'))
  writeFileSync(
    join(folder, 'replctl.yaml'),
    'cluster: shop\npostgres: { data_dir: /srv/pg }\nnodes: { pg1: { host: 10.0.0.11 } }\n',
  )
  afterAll(() => rmSync(folder, { recursive: true }))
  const clusterIn = async (...words: readonly string[]) =>
    JSON.parse((await run([...words, '--json'], { cwd: () => folder })).out).cluster

  test.each([
    ['sandbox', 'up', '--standbys', 'many'],
    ['sandbox', 'status', '--dir', '/nonexistent/sandbox'],
    ['completion', 'tcsh'],
    ['new', 'Shop', '--hosts', 'a'],
  ])('is not that of replctl %s %s', async (...words) => {
    expect(await clusterIn(...words)).toBe(null)
  })

  test('is that of a command that reads it', async () => {
    expect(await clusterIn('add-standby', 'pg9')).toBe('shop')
  })

  test.each(['promote a b', 'status --timeout abc', 'follow pg1', 'statsu', 'backup list --nope'])(
    'is told also where the command line is wrong: replctl %s',
    async (line) => {
      expect(await clusterIn(...line.split(' '))).toBe('shop')
    },
  )

  test.each(['-c FILE', '--config FILE', '--config=FILE', '-cFILE'])(
    'is that of %s, wherever it stands',
    async (option) => {
      const file = join(folder, 'other.yaml')
      writeFileSync(
        file,
        'cluster: other\npostgres: { data_dir: /srv/pg }\nnodes: { pg1: { host: 10.0.0.11 } }\n',
      )
      const words = option.replace('FILE', file).split(' ')
      expect(await clusterIn(...words, 'promote', 'a', 'b')).toBe('other')
      expect(await clusterIn('promote', 'a', 'b', ...words)).toBe('other')
    },
  )

  test('is known from the one time that a pipe was read', async () => {
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    const writer = spawn('sh', ['-c', 'exec cat "$1" > "$2"', 'sh', join(folder, 'replctl.yaml'), pipe])
    expect(await clusterIn('-c', pipe, 'verify', 'pg9')).toBe('shop')
    writer.kill()
  })

  test('is not waited for behind a signal, where nobody writes into the pipe', async () => {
    const pipe = join(folder, 'silent')
    execFileSync('mkfifo', [pipe])
    const { fake, running, written } = start(['-c', pipe, 'promote', '--json'], { cwd: () => folder })
    fake.emit('SIGTERM')
    expect(await running).toBe(143)
    expect(JSON.parse(written.out)).toMatchObject({ cluster: null, problems: [{ code: 'interrupted' }] })
  })
})

describe('what to do after replctl new', () => {
  const folders: string[] = []
  afterAll(() => {
    for (const folder of folders) rmSync(folder, { recursive: true })
  })
  const nextOf = async (words: readonly string[], env: Readonly<Record<string, string>> = {}) => {
    const folder = mkdtempSync(join(tmpdir(), 'replctl-new-'))
    folders.push(folder)
    const { out } = await run(['new', 'shop', '--hosts', 'a', ...words], { cwd: () => folder, env })
    return out.split('\n')[1]
  }

  test('names the file where the next command would read another one, or none', async () => {
    expect(await nextOf([])).toBe('Next: look it through, then replctl doctor')
    expect(await nextOf(['-c', 'replctl.yaml'])).toBe('Next: look it through, then replctl doctor')
    expect(await nextOf(['-c', 'y.yaml'])).toBe('Next: look it through, then replctl -c y.yaml doctor')
    expect(await nextOf(['-c', 'my y.yaml'])).toBe(
      "Next: look it through, then replctl -c 'my y.yaml' doctor",
    )
    expect(await nextOf([], { REPLCTL_CONFIG: '/other.yaml' })).toBe(
      'Next: look it through, then replctl -c replctl.yaml doctor',
    )
  })
})

describe('version and help', () => {
  test.each(['--json --version', '-V --json', 'status --json --version'])(
    'replctl %s is one JSON document',
    async (line) => {
      const { exitCode, out } = await replctl(...line.split(' '))
      expect(exitCode).toBe(0)
      expect(JSON.parse(out)).toMatchObject({
        cluster: null,
        ok: true,
        exit_code: 0,
        changed: false,
        problems: [],
      })
      expect(JSON.parse(out).result).toEqual({ version: expect.stringMatching(/^\d+\.\d+\.\d+$/) })
    },
  )

  test.each(['--version', '-V', '--no-color -V', 'status --version'])(
    'replctl %s prints the version only',
    async (line) => {
      const ran = await replctl(...line.split(' '))
      expect(ran).toMatchObject({ exitCode: 0, err: '' })
      expect(ran.out).toMatch(/^\d+\.\d+\.\d+\n$/)
    },
  )

  test.each([
    ['help', 'Usage: replctl [options]'],
    ['help backup', 'Usage: replctl backup [options]'],
    ['help backup list', 'Usage: replctl backup list'],
    ['help init primary', 'Usage: replctl init primary'],
    ['sandbox help up', 'Usage: replctl sandbox up'],
    ['help status --json', 'Usage: replctl status'],
  ])('replctl %s shows the help of all its words', async (line, usage) => {
    const { exitCode, out, err } = await replctl(...line.split(' '))
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' })
    expect(out).toContain(usage)
  })

  test('--help lists every command that works, and no other', async () => {
    const { exitCode, out, err } = await replctl('--help')
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' })
    const listed = [...out.matchAll(/^ {2}([a-z][a-z-]+)[ |]/gm)].map((match) => match[1]!)
    const known = new Set(commands.map(({ name }) => name.split(' ')[0]!))
    expect(new Set(listed.filter((name) => name !== 'help'))).toEqual(known)
    expect(out).toContain('Exit codes: 0 done')
    expect(out).toContain('Start here:')
  })

  test('no line of help is wider than 80 columns, examples aside', async () => {
    for (const words of [[], ...commands.map(({ name }) => name.split(' '))]) {
      const { out } = await replctl(...words, '--help')
      const wide = out.split('\n').filter((line) => line.length > 80 && !/^ {2}.*replctl /.test(line))
      expect(wide).toEqual([])
    }
    expect((await replctl('rejoin', '--help')).out).toMatch(/^ {12}\S/m)
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

test('any number of hosts can listen to the signals at once: Node.js does not warn of a leak', async () => {
  const warned = vi.fn()
  process.on('warning', warned)
  const schema = commands.find(({ name }) => name === 'schema') as CommandSpec
  const load = vi.spyOn(schema, 'load').mockResolvedValue({
    run: async ({ signal }) => {
      for (let host = 0; host < 40; host++) signal.addEventListener('abort', () => undefined)
      return { exitCode: 0, changed: false, cluster: null, result: null, problems: [], text: 'done' }
    },
  })
  const { exitCode } = await replctl('schema')
  await new Promise((resolve) => setImmediate(resolve))
  expect(load).toHaveBeenCalledOnce()
  load.mockRestore()
  process.off('warning', warned)
  expect(exitCode).toBe(0)
  expect(warned).not.toHaveBeenCalled()
})
