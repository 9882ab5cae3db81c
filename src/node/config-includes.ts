import { shellScript } from '../command.ts'
import { type ConfigEntry, includeMarker, parseConfigFile } from '../postgres/config-file.ts'
import { readTextFile } from './files.ts'
import type { Node } from './node.ts'

/** As deep as the server itself goes. */
const deepest = 10

/**
 * Text of a configuration file with everything it includes in place of the line that includes it; that line stays as a
 * comment. What replctl included itself is left as it is. Empty where there is no such file.
 * @see https://www.postgresql.org/docs/current/config-setting.html#CONFIG-INCLUDES
 */
export async function readWithIncludes(node: Node, path: string, depth = 0): Promise<string> {
  const text = (await readTextFile(node, path)) ?? ''
  const lines = text.split('\n')
  const includes = parseConfigFile(text).filter(
    (entry) => entry.name.startsWith('include') && lines[entry.line - 1]?.includes(includeMarker) === false,
  )
  if (includes.length === 0 || depth >= deepest) return text
  const brought = new Map<number, string>()
  for (const entry of includes) {
    const files = await filesOf(node, path, entry)
    const texts = await Promise.all(files.map((file) => readWithIncludes(node, file, depth + 1)))
    const parts = files.map((file, index) => `# from ${file}:\n${texts[index]?.trimEnd()}`)
    brought.set(entry.line, [`#${lines[entry.line - 1]}`, ...parts, `# end of what it included`].join('\n'))
  }
  return lines.map((line, index) => brought.get(index + 1) ?? line).join('\n')
}

async function filesOf(node: Node, path: string, { name, value }: ConfigEntry): Promise<readonly string[]> {
  const target = value.startsWith('/') ? value : `${path.slice(0, path.lastIndexOf('/'))}/${value}`
  if (name !== 'include_dir') return [target]
  // As the server does: *.conf in the C locale's order, hidden ones left out.
  const script =
    'cd "$1" 2>/dev/null || exit 0; for file in *.conf; do [ -f "$file" ] && printf "%s\\n" "$file"; done; :'
  const listed = await node.output(shellScript(`list ${target}`, script, [target]))
  return listed.split('\n').flatMap((file) => (file === '' ? [] : [`${target}/${file}`]))
}
