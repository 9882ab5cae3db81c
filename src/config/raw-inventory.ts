/** A map as it came from YAML, not yet checked. */
export type RawMap = Readonly<Record<string, unknown>>

/** The inventory before any check, looked at with care: what has the wrong type is taken as not given. */
export interface RawInventory {
  readonly cluster: string | undefined
  readonly nodes: readonly RawNode[]
  readonly postgres: RawMap
  readonly ssh: RawMap
  readonly replication: RawMap
  readonly archive: RawMap | undefined
}

export interface RawNode {
  readonly name: string
  readonly map: RawMap
  readonly host: string | undefined
  readonly upstream: string | undefined
}

/**
 * Lets references be checked even where something else in the file is wrong, so that all problems are told at once.
 */
export function rawInventory(root: RawMap): RawInventory {
  return {
    cluster: asText(root.cluster),
    nodes: Object.entries(asMap(root.nodes)).map(([name, value]) => {
      const map = asMap(value)
      return { name, map, host: asText(map.host), upstream: asText(map.upstream) }
    }),
    postgres: asMap(root.postgres),
    ssh: asMap(root.ssh),
    replication: asMap(root.replication),
    archive: root.archive === undefined ? undefined : asMap(root.archive),
  }
}

/** A `postgres` setting of a node, wherever it is given. */
export function postgresSettingOf(raw: RawInventory, node: RawNode, key: string): unknown {
  return node.map[key] ?? asMap(node.map.postgres)[key] ?? raw.postgres[key]
}

/** An `ssh` setting of a node, its own or the common one. */
export function sshSettingOf(raw: RawInventory, node: RawNode, key: string): unknown {
  return asMap(node.map.ssh)[key] ?? raw.ssh[key]
}

export function asMap(value: unknown): RawMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as RawMap) : {}
}

export function asText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
