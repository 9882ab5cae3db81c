import { shellScript } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import type { Node } from './node.ts'

const script = `
at=$1
while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
if [ -d "$at" ] && [ -w "$at" ] && [ -x "$at" ]; then echo yes; else echo no; fi
printf '%s\\n' "$at"
df -Pk -- "$at" 2>/dev/null | awk 'NR == 2 { print $4 }'
`

/** Whether the archive's folder is there or can be made, and how much room it has. @throws if the host cannot be reached */
export async function examineArchive(
  host: Node,
  dir: string,
): Promise<{ readonly detail: string } | { readonly error: ReplctlError }> {
  await host.transport.connect()
  const output = await host.output(shellScript(`look at ${dir}`, script, [dir]), { timeoutMs: 4_000 })
  const [isWritable, place = dir, kibibytes] = output.trim().split('\n')
  if (isWritable === 'yes') {
    const free = kibibytes === undefined ? '' : `, ${(Number(kibibytes) / 2 ** 20).toFixed(1)} GiB are free`
    return { detail: `${dir} ${place === dir ? 'is there' : 'can be made'}${free}` }
  }
  const { osUser } = host.settings.postgres
  return {
    error: new ReplctlError(
      'archive-failing',
      `cannot write to the archive ${dir} on ${host.settings.host}`,
      {
        detail: `"${osUser}" may not write to ${place}.`,
        hint: `Make it there: install -d -m 0700 -o ${osUser} ${dir}`,
        node: host.name,
      },
    ),
  }
}
