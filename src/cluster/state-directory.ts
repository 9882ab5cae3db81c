import type { NodeSettings } from './inventory.ts'

type Location = Pick<NodeSettings, 'name' | 'host' | 'ssh' | 'postgres'>

/**
 * Where replctl keeps its files about a node, below the home of the PostgreSQL OS user: `.replctl/shop`. Where several
 * nodes share that home, the first keeps this name, so that a node added later changes nothing for it; the others get
 * `.replctl/shop.pg2`. No cluster's name holds a full stop, so no two ever meet.
 */
export function defaultStateDir(cluster: string, node: Location, earlier: readonly Location[]): string {
  const isShared = earlier.some((other) => homeIdentity(other) === homeIdentity(node))
  return `.replctl/${cluster}${isShared ? `.${node.name}` : ''}`
}

/**
 * Nodes whose default state directory would be another one if this node were no longer in the inventory: what replctl keeps about
 * them (mark, record, passfile, fence mark) would not be found any more.
 */
export function movedWithout<Node extends Location & Pick<NodeSettings, 'stateDir'>>(
  cluster: string,
  nodes: readonly Node[],
  removed: NodeSettings['name'],
): readonly Node[] {
  return nodes.filter((node, index) => {
    const earlier = nodes.slice(0, index)
    const left = earlier.filter((one) => one.name !== removed)
    const isDefault = node.name !== removed && node.stateDir === defaultStateDir(cluster, node, earlier)
    return isDefault && defaultStateDir(cluster, node, left) !== node.stateDir
  })
}

/** Absolute path of a node's state directory. */
export function stateDirectoryOf(home: string, { stateDir }: Pick<NodeSettings, 'stateDir'>): string {
  return stateDir.startsWith('/') ? stateDir : `${home}/${stateDir}`
}

/** Whether two nodes are on one machine, as far as the inventory tells. */
export function isSameMachine(
  one: Pick<Location, 'host' | 'ssh'>,
  other: Pick<Location, 'host' | 'ssh'>,
): boolean {
  return JSON.stringify(wayTo(one)) === JSON.stringify(wayTo(other))
}

/** The same name behind another port of sshd is another machine. */
function wayTo({ host, ssh }: Pick<Location, 'host' | 'ssh'>): readonly unknown[] {
  return [host.toLowerCase(), ...(host === 'local' ? [] : [ssh.port ?? 22, ssh.configFile])]
}

function homeIdentity({ postgres, ...location }: Location): string {
  return JSON.stringify([postgres.osUser, ...wayTo(location)])
}
