import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runProcess, runReplctl } from '../kit/index.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'replctl-completion-'))
const isThere = (shell: string) =>
  ['/bin', '/usr/bin', '/usr/local/bin'].some((dir) => existsSync(join(dir, shell)))

beforeAll(() => {
  // No host of these is ever asked: completion reads the file.
  const nodes = ['pg1', 'pg2', 'db-3'].map((name) => `  ${name}: { host: ${name}.invalid }\n`)
  writeFileSync(
    join(folder, 'replctl.yaml'),
    `cluster: shop\npostgres: { data_dir: /data }\nnodes:\n${nodes.join('')}`,
  )
  writeFileSync(join(folder, 'half.yaml'), 'nodes:\n  alpha: { host: a }\n  beta: {')
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** What completion answers: the values, and the directive in the last line. */
async function complete(...words: string[]): Promise<{ values: string[]; directive: string }> {
  const { exitCode, stdout, stderr } = await runReplctl(['complete', '--', ...words], { cwd: folder })
  expect(exitCode, stderr).toBe(0)
  const lines = stdout.trimEnd().split('\n')
  const directive = lines.pop() ?? ''
  for (const line of lines) expect(line).toMatch(/^[\w-]+\t.*$/)
  return { values: lines.map((line) => line.split('\t')[0] ?? ''), directive }
}

describe('completion', () => {
  it('knows commands and their groups', async () => {
    expect((await complete('pro')).values).toEqual(['promote'])
    expect((await complete('')).values).toEqual(
      expect.arrayContaining(['init', 'add-standby', 'sandbox', 'status']),
    )
    expect((await complete('init', '')).values).toContain('primary')
    expect((await complete('sandbox', 'u')).values).toEqual(['up'])
  })

  it('knows what help can be asked about', async () => {
    expect((await complete('help', 'pro')).values).toEqual(['promote'])
    expect((await complete('help', 'backup', '')).values).toEqual(['list', 'verify', 'expire'])
    expect((await complete('help', 'promote', '')).values).toEqual([])
    expect((await complete('hel')).values).toEqual(['help'])
  })

  it('knows options and their values', async () => {
    expect((await complete('promote', '--allow-d')).values).toEqual(['--allow-data-loss'])
    expect((await complete('promote', '--method', '')).values).toEqual(['auto', 'trigger-file', 'pg_promote'])
    expect((await complete('completion', '')).values).toEqual(['bash', 'zsh', 'fish'])
  })

  it('names the nodes of the inventory, each once', async () => {
    expect((await complete('promote', '')).values).toEqual(['pg1', 'pg2', 'db-3'])
    expect((await complete('promote', '--json', 'd')).values).toEqual(['db-3'])
    expect((await complete('add-standby', 'pg1', '')).values).toEqual(['pg2', 'db-3'])
    expect((await complete('add-standby', 'pg1', '--from', '')).values).toEqual(['pg2', 'db-3'])
    expect((await complete('status', '')).values).toEqual([])
  })

  it('reads the inventory that is named on the command line, half-written ones too, and none at all', async () => {
    expect((await complete('-c', 'half.yaml', 'promote', 'a')).values).toEqual(['alpha'])
    expect((await complete('--config=half.yaml', 'promote', 'a')).values).toEqual(['alpha'])
    expect((await complete('-c', 'missing.yaml', 'promote', '')).values).toEqual([])
  })

  it('leaves paths to the shell', async () => {
    expect(await complete('-c', '')).toEqual({ values: [], directive: ':0' })
    expect(await complete('sandbox', 'up', '--dir', '')).toEqual({ values: [], directive: ':0' })
  })

  it('refuses a shell that it does not know', async () => {
    expect((await runReplctl(['completion', 'tcsh'])).exitCode).toBe(2)
  })

  it('loads nothing that talks to hosts', async () => {
    const { metafile } = await build({
      absWorkingDir: root,
      entryPoints: ['src/cli/main.ts'],
      bundle: true,
      write: false,
      metafile: true,
      format: 'esm',
      platform: 'node',
      outdir: 'unused',
      splitting: true,
      logLevel: 'silent',
      external: ['cpu-features', 'pg-native', '*.node'],
    })
    const seen = new Set<string>()
    // Commands load their own code later, by a dynamic import: completion never calls them.
    const visit = (path: string, isEntry: boolean): void => {
      if (seen.has(path)) return
      seen.add(path)
      for (const { path: next, kind, external } of metafile.inputs[path]?.imports ?? []) {
        if (external !== true && (kind !== 'dynamic-import' || isEntry)) visit(next, false)
      }
    }
    visit('src/cli/main.ts', false)
    visit('src/cli/complete.ts', true)
    const packages = new Set(
      [...seen].flatMap((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []),
    )
    expect([...packages].sort()).toEqual(['@bomb.sh/tab', 'commander', 'yaml'])
  })
})

describe('the completion scripts', () => {
  const path = `${join(root, 'bin')}:${process.env.PATH}`
  const inShell = async (shell: string, args: readonly string[]): Promise<string> => {
    const env = { PATH: path, HOME: folder, TERM: 'dumb' }
    const { stdout } = await runProcess(shell, args, { cwd: folder, env, timeoutMs: 30_000 })
    return stdout
  }

  it('bash: completes, loaded twice, without the package bash-completion', async () => {
    const script = `
      source <(replctl completion bash); source <(replctl completion bash)
      try() {
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        __replctl_complete 2>/dev/null
        echo "[\${COMPREPLY[*]}]"
      }
      try replctl pro; try replctl promote d; try replctl promote ''; try replctl promote --meth
      complete -p replctl`
    const lines = (await inShell('bash', ['--norc', '-c', `${script} 2>&1`])).trim().split('\n')
    expect(lines.slice(0, 4)).toEqual(['[promote]', '[db-3]', '[pg1 pg2 db-3]', '[--method]'])
    expect(lines[4]).toBe('complete -o default -F __replctl_complete replctl')
  })

  it.runIf(isThere('fish'))('fish: completes commands, options and nodes', async () => {
    const ask = ['promote d', 'sandbox u', 'promote --meth'].map((words) => `complete -C "replctl ${words}"`)
    const script = ['replctl completion fish | source', ...ask].join('\n')
    const lines = (await inShell('fish', ['--no-config', '-c', script])).trim().split('\n')
    expect(lines.map((line) => line.split('\t')[0])).toEqual(['db-3', 'up', '--method'])
  })

  it.runIf(isThere('zsh'))('zsh: completes what is typed into a real one', async () => {
    const script = `
      zmodload zsh/zpty
      zpty shell zsh -f -i
      zpty -w shell "PROMPT=; autoload -U compinit; compinit -u -D; source <(replctl completion zsh); echo REA''DY"
      while zpty -r shell line; do [[ $line == *READY* ]] && break; done
      zpty -n -w shell $'replctl promote d\\t'
      typed=
      for try in {1..100}; do
        zpty -r -t shell line && typed+=$line
        [[ $typed == *db-3* ]] && break
        sleep 0.1
      done
      print -r -- "$typed"
      zpty -d shell`
    expect(await inShell('zsh', ['-f', '-c', script])).toMatch(/replctl promote db-3/)
  })
})
