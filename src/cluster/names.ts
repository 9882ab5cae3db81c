declare const brand: unique symbol

/** Name of a node as the inventory gives it, e.g. `pg1`. */
export type NodeName = string & { readonly [brand]: 'NodeName' }

/** Marks a string that was read from the inventory (or is checked against it) as a node's name. */
export function nodeName(name: string): NodeName {
  return name as NodeName
}

/** Under this name the steps reach the archive host, be it a node as well or not. No node can be called so. */
export const archiveHost = nodeName('archive host')

/** Under this name the steps reach an instance that is restored beside a node's own, on the node's host. */
export const besideNode = (name: NodeName): NodeName => nodeName(`${name} (restored)`)
