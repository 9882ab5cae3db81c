import { join } from 'node:path'
import { nodeFolder, type SandboxMark, sandboxRole } from './folder.ts'
import type { SandboxPlace } from './place.ts'

export interface SandboxInventory {
  readonly binDir: string
  readonly mark: SandboxMark
  /** One for each node: pg1, pg2, … */
  readonly ports: readonly number[]
}

/** The inventory of a sandbox: a real one, of nodes that share this machine. JSON's strings are YAML's. */
export function sandboxInventoryText(place: SandboxPlace, { binDir, mark, ports }: SandboxInventory): string {
  const quote = JSON.stringify
  const nodes = ports.map((port, index) => {
    const name = `pg${index + 1}`
    const folder = nodeFolder(place, name)
    const [data, state] = ['data', 'state'].map((part) => quote(join(folder, part)))
    return `  ${name}: { host: local, port: ${port}, data_dir: ${data}, state_dir: ${state} }\n`
  })
  return `\
# Made by "replctl sandbox up". "replctl sandbox down" deletes it, and all data with it.
cluster: sandbox

postgres:
  bin_dir: ${quote(binDir)}
  os_user: ${quote(place.osUser)}
  service: pg_ctl
  parameters:
    listen_addresses: 127.0.0.1
    unix_socket_directories: ${quote(mark.socket_dir)}
    shared_buffers: 16MB
  hba:
    - host all ${sandboxRole} 127.0.0.1/32 scram-sha-256

nodes:
${nodes.join('')}`
}
