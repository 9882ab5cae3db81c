import { parseDocument } from 'yaml'

/** Names of the nodes in an inventory's text, without checking it: for completion, where a file may be half-written. */
export function readNodeNames(text: string): readonly string[] {
  const document = parseDocument(text).toJS() as { readonly nodes?: unknown } | null
  const nodes = document?.nodes
  return typeof nodes === 'object' && nodes !== null ? Object.keys(nodes) : []
}
