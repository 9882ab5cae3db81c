import { shellScript } from '../command.ts'
import type { Node } from './node.ts'

/** A postmaster that serves a node's port, wherever its data directory lies. */
export interface ServingInstance {
  readonly pid: number
  /** Empty where it could not be read. */
  readonly systemIdentifier: string
  /** e.g. `/var/lib/postgresql/15/shop.old`; ends in ` (deleted)` where it was removed from under it. */
  readonly directory: string
}

/** The first thing in pg_control is the system identifier, of every version. */
export const identifierScript = `identifier_in() { od -An -tu8 -N8 -- "$1/global/pg_control" 2>/dev/null | tr -d ' '; }`

const findScript = `
${identifierScript}
for entry in /proc/[0-9]*; do
  { read -r name < "$entry/comm"; } 2>/dev/null || continue
  case $name in postgres*|postmaster*) ;; *) continue ;; esac
  { read -r first; read -r _; read -r _; read -r port; } 2>/dev/null < "$entry/cwd/postmaster.pid" || continue
  [ "$first" = "\${entry#/proc/}" ] && [ "$port" = "$1" ] || continue
  printf '%s\\t%s\\t%s\\n' "$first" "$(identifier_in "$entry/cwd")" "$(readlink "$entry/cwd")"
done
:
`

/** Looks for what serves the node's port by the processes of its host, whose working directory is their data directory. */
export async function findServing(node: Node): Promise<readonly ServingInstance[]> {
  const { port } = node.settings.postgres
  const command = shellScript(`look for what serves port ${port}`, findScript, [String(port)])
  const { stdout } = await node.read(command, { timeoutMs: 15_000 })
  return stdout.split('\n').flatMap((line) => {
    const [pid, systemIdentifier = '', directory = ''] = line.split('\t')
    return pid ? [{ pid: Number(pid), systemIdentifier, directory }] : []
  })
}
