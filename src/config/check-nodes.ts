import { slotNameFor } from '../cluster/replication-names.ts'
import type { InventoryProblem } from './inventory-problem.ts'
import { asMap, postgresSettingOf, type RawInventory, type RawNode, sshSettingOf } from './raw-inventory.ts'
import { postgresSchema } from './schema.ts'

/** Each node has a data directory, a port and a replication slot of its own, and all have the same major version. */
export function checkNodes(raw: RawInventory): InventoryProblem[] {
  return [
    ...raw.nodes.flatMap(checkGivenOnce),
    ...raw.nodes.flatMap((node) => checkDataDirectory(raw, node)),
    ...checkInstancesApart(raw),
    ...checkSlotNames(raw),
    ...checkVersions(raw),
  ]
}

/** `data_dir` directly in a node and again in its `postgres`: nobody can tell which one is meant. */
function checkGivenOnce({ name, map }: RawNode): InventoryProblem[] {
  const mergeable = ['parameters', 'hba']
  return Object.keys(asMap(map.postgres))
    .filter((key) => key in postgresSchema.shape && key in map && !mergeable.includes(key))
    .map((key) => ({
      path: ['nodes', name, 'postgres', key],
      at: 'key',
      message: `also given as nodes.${name}.${key}`,
      hint: 'Remove one of the two.',
    }))
}

function checkDataDirectory(raw: RawInventory, node: RawNode): InventoryProblem[] {
  if (postgresSettingOf(raw, node, 'data_dir') !== undefined) return []
  const hint = 'Give it under "postgres" for all nodes, or in the node.'
  return [{ path: ['nodes', node.name], at: 'key', message: 'missing key "data_dir"', hint }]
}

function checkInstancesApart(raw: RawInventory): InventoryProblem[] {
  return raw.nodes.flatMap((node, index) =>
    raw.nodes.slice(0, index).flatMap((other): InventoryProblem[] => {
      const shared = sharedResource(raw, node, other)
      if (shared === undefined) return []
      const message = `the same ${shared} as node "${other.name}" on the same host`
      return [{ path: ['nodes', node.name], at: 'key', message, hint: 'Each node needs its own.' }]
    }),
  )
}

function sharedResource(raw: RawInventory, node: RawNode, other: RawNode): string | undefined {
  if (node.host === undefined || hostIdentity(raw, node) !== hostIdentity(raw, other)) return undefined
  const isEqual = (key: string, fallback?: unknown) => {
    const value = normalize(postgresSettingOf(raw, node, key) ?? fallback)
    return value !== undefined && value === normalize(postgresSettingOf(raw, other, key) ?? fallback)
  }
  if (node.map.state_dir !== undefined && normalize(node.map.state_dir) === normalize(other.map.state_dir)) {
    return 'state_dir'
  }
  if (isEqual('data_dir')) return isEqual('port', 5432) ? 'port and data directory' : 'data directory'
  // With addresses of their own two instances may well share a port.
  return isEqual('port', 5432) && node.map.address === other.map.address ? 'port' : undefined
}

/** The same name behind another port of sshd is another machine: forwarded ports, containers. */
function hostIdentity(raw: RawInventory, node: RawNode): string {
  const way = [sshSettingOf(raw, node, 'port') ?? 22, sshSettingOf(raw, node, 'config_file')]
  return JSON.stringify(node.host === 'local' ? [node.host] : [node.host?.toLowerCase(), ...way])
}

function normalize(value: unknown): unknown {
  return typeof value === 'string' ? value.replaceAll(/\/+/g, '/').replace(/\/$/, '') : value
}

/** PostgreSQL allows few characters in a slot's name, so different nodes may end up with the same one. */
function checkSlotNames({ cluster, nodes }: RawInventory): InventoryProblem[] {
  if (cluster === undefined) return []
  const owners = new Map<string, string>()
  return nodes.flatMap(({ name }): InventoryProblem[] => {
    const slot = slotNameFor(cluster, name)
    const owner = owners.get(slot)
    owners.set(slot, owner ?? name)
    if (owner === undefined) return []
    const message = `nodes "${owner}" and "${name}" would share the replication slot "${slot}"`
    return [
      {
        path: ['nodes', name],
        at: 'key',
        message,
        hint: 'Rename one: only letters, digits and _ tell slots apart.',
      },
    ]
  })
}

/** Physical replication works within one major version only. What is not given is detected, and compared by doctor. */
function checkVersions(raw: RawInventory): InventoryProblem[] {
  const given = raw.nodes.flatMap((node) => {
    const version = postgresSettingOf(raw, node, 'version')
    return typeof version === 'number' ? [{ node, version }] : []
  })
  // Who has the common version is right: then it is a node's own that differs, and stands in one place.
  const right = given.find(({ version }) => version === raw.postgres.version) ?? given[0]
  return given.flatMap(({ node, version }): InventoryProblem[] => {
    if (right === undefined || version === right.version) return []
    const own = node.map.version === undefined ? ['postgres', 'version'] : ['version']
    return [
      {
        path: ['nodes', node.name, ...own],
        at: 'value',
        message: `PostgreSQL ${version} cannot replicate with the ${right.version} of node "${right.node.name}"`,
        hint: 'All nodes of a cluster have the same major version.',
      },
    ]
  })
}
