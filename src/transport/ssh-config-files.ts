import { readdir, readFile } from 'node:fs/promises'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { matchesWildcard } from './host-pattern.ts'

/** The ssh_config files that apply, read and with what they include in place. */
export interface SshConfigText {
  /** The user's file (or the one named instead of it) as it is. */
  readonly user: string
  /** Everything in order of precedence, includes expanded. */
  readonly expanded: string
  /** Whether the system's file applies too: not when a file was named. */
  readonly hasSystem: boolean
}

export const systemConfigFile = '/etc/ssh/ssh_config'
const deepestInclude = 16

/** Reads ~/.ssh/config and the system's file, or `configFile` alone, as `ssh -F` does. */
export async function readSshConfig(home: string, configFile: string | undefined): Promise<SshConfigText> {
  const userFile = configFile ?? join(home, '.ssh', 'config')
  const user = configFile === undefined ? await readIfThere(userFile) : await readFile(userFile, 'utf8')
  const expanded = await expandIncludes(user, join(home, '.ssh'), home, 0)
  if (configFile !== undefined) return { user, expanded, hasSystem: false }
  const system = await readIfThere(systemConfigFile)
  const systemExpanded = await expandIncludes(system, dirname(systemConfigFile), home, 0)
  return { user, expanded: `${expanded}\nMatch all\n${systemExpanded}`, hasSystem: system !== '' }
}

/** Splits a line of ssh_config into its keyword in lower case and the rest. */
export function parseConfigLine(line: string): readonly [keyword: string, value: string] {
  const [, keyword = '', value = ''] = /^\s*([^\s=#]+)\s*=?\s*(.*?)\s*$/.exec(line) ?? []
  return [keyword.toLowerCase(), value]
}

async function expandIncludes(text: string, folder: string, home: string, depth: number): Promise<string> {
  if (depth >= deepestInclude || !/^\s*include/im.test(text)) return text
  const lines: string[] = []
  // An include may hold Host lines of its own; after it the block it stands in goes on.
  let block = 'Match all'
  for (const line of text.split('\n')) {
    const [keyword, value] = parseConfigLine(line)
    if (keyword === 'host' || keyword === 'match') block = line
    if (keyword !== 'include') {
      lines.push(line)
      continue
    }
    for (const file of await expandPattern(value, folder, home)) {
      const included = await readIfThere(file)
      lines.push(await expandIncludes(included, folder, home, depth + 1))
    }
    lines.push(block)
  }
  return lines.join('\n')
}

async function expandPattern(value: string, folder: string, home: string): Promise<readonly string[]> {
  const words = value.match(/"[^"]*"|\S+/g) ?? []
  const patterns = words.map((word) => word.replace(/^"(.*)"$/, '$1').replace(/^~(?=\/|$)/, home))
  const files = await Promise.all(
    patterns.map((pattern) => glob(isAbsolute(pattern) ? pattern : resolve(folder, pattern))),
  )
  return files.flat()
}

async function glob(pattern: string): Promise<readonly string[]> {
  if (!/[*?]/.test(pattern)) return [pattern]
  const folders = await glob(dirname(pattern))
  const last = pattern.slice(pattern.lastIndexOf('/') + 1)
  const found = await Promise.all(
    folders.map(async (folder) => {
      const names = await readdir(folder).catch((): string[] => [])
      const isHidden = (name: string): boolean => name.startsWith('.') && !last.startsWith('.')
      return names
        .filter((name) => matchesWildcard(name, last) && !isHidden(name))
        .sort()
        .map((name) => join(folder, name))
    }),
  )
  return found.flat()
}

async function readIfThere(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch {
    return ''
  }
}
