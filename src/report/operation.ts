import type { ObservedNode } from '../cluster/topology.ts'
import type { Journal } from '../engine/journal.ts'
import { oneLine } from './plain-text.ts'

/** What a lock's holder wrote of itself, as far as it could be read. */
type HolderText = Partial<Record<'user' | 'host' | 'command' | 'since', unknown>>

/** A line for each operation that holds the cluster now. */
export function holderLines(nodes: readonly ObservedNode[]): string[] {
  const byHolder = groupNodes(nodes, ({ facts }) => facts.holder)
  return [...byHolder].map(([text, names]) => {
    const holder = readObject<HolderText>(text)
    const command = holder?.command === undefined ? 'another replctl operation' : `"${told(holder.command)}"`
    const by = holder?.user === undefined ? '' : ` by ${told(holder.user)}@${told(holder.host)}`
    const since = holder?.since === undefined ? '' : `, since ${time(holder.since)}`
    return `In progress: ${command}${by}${since}. It holds the lock on ${names.join(', ')}.`
  })
}

/** A line for each operation that stopped part-way: its journal lies there and nobody holds the lock. */
export function unfinishedLines(nodes: readonly ObservedNode[]): string[] {
  const journals = groupNodes(nodes, ({ facts }) => (facts.holder === null ? facts.journal : null))
  const byBeginning = new Map<string, { journal: Partial<Journal> | null; names: string[] }>()
  for (const [text, names] of journals) {
    // Each step writes the journal anew: the nodes may have different states of the same operation.
    const journal = readObject<Journal>(text)
    const key = journal === null ? text : JSON.stringify([journal.command, journal.by, journal.since])
    const known = byBeginning.get(key)
    const isFurther = journal?.isPastPointOfNoReturn === true || known === undefined
    byBeginning.set(key, {
      journal: isFurther ? journal : known.journal,
      names: [...(known?.names ?? []), ...names],
    })
  }
  return [...byBeginning.values()].map(({ journal, names }) => unfinishedLine(journal, names))
}

function unfinishedLine(journal: Partial<Journal> | null, names: readonly string[]): string {
  const command = journal?.command === undefined ? 'an operation' : `"replctl ${told(journal.command)}"`
  const by = journal?.by === undefined ? '' : ` by ${told(journal.by)}`
  const since = journal?.since === undefined ? '' : `, begun ${time(journal.since)}`
  const next =
    journal?.isPastPointOfNoReturn === true
      ? 'It is past its point of no return. Finish it: replctl resume'
      : 'Finish it: replctl resume. Or take it back: replctl abort'
  return `Stopped part-way: ${command}${by}${since} (journal on ${names.join(', ')}). ${next}`
}

function groupNodes(
  nodes: readonly ObservedNode[],
  textOf: (node: ObservedNode) => string | null,
): Map<string, string[]> {
  const groups = new Map<string, string[]>()
  for (const node of nodes) {
    const text = textOf(node)
    if (text !== null) groups.set(text, [...(groups.get(text) ?? []), node.settings.name])
  }
  return groups
}

function readObject<T>(text: string): Partial<T> | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Partial<T>) : null
  } catch {
    return null
  }
}

const told = (value: unknown): string => (value === undefined ? 'unknown' : oneLine(String(value)))

/** `2026-11-02T03:12:44.120Z` as `2026-11-02 03:12:44 UTC`. */
function time(value: unknown): string {
  const match = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z$/.exec(String(value))
  return match === null ? told(value) : `${match[1]} ${match[2]} UTC`
}
