import type { ClusterRecord, NodeFacts, Survey } from './facts.ts'

/** The newest record of the cluster among these nodes. */
export function commonRecord(survey: Survey): ClusterRecord | null {
  const records = survey.map((facts) => facts.record).filter((record) => record !== null)
  return records.toSorted((a, b) => b.generation - a.generation)[0] ?? null
}

/**
 * The least generation with which a record of this system identifier wins over every other that was seen: one of an earlier
 * cluster may lie where nothing else is left of it, and the highest of all counts.
 */
export function nextGeneration(survey: Survey, systemIdentifier: string | undefined): number {
  const needed = survey.flatMap(({ record }) =>
    record === null ? [] : [record.generation + (record.systemIdentifier === systemIdentifier ? 0 : 1)],
  )
  return Math.max(1, ...needed)
}

/** System identifier of what stands on a node, by the running instance, pg_control, or our own mark; else undefined. */
export function identifierOf(facts: NodeFacts): string | undefined {
  const marked = facts.mark?.systemIdentifier
  return (
    facts.instance?.systemIdentifier ??
    facts.control?.systemIdentifier ??
    (marked === '' ? undefined : marked)
  )
}

/**
 * The cluster's system identifier: as recorded, else the one that most nodes have. Null before anything is built.
 * What has another one is not ours, wherever it stands: it is never stopped, promoted or counted.
 */
export function clusterIdentifier(survey: Survey): string | null {
  const recorded = commonRecord(survey)?.systemIdentifier
  if (recorded !== undefined && recorded !== '') return recorded
  const counts = new Map<string, number>()
  for (const facts of survey) {
    const id = identifierOf(facts)
    if (id !== undefined) counts.set(id, (counts.get(id) ?? 0) + 1)
  }
  return [...counts].toSorted((a, b) => b[1] - a[1])[0]?.[0] ?? null
}

/** Whether what stands on a node is known to belong to another cluster. */
export function isForeign(facts: NodeFacts, survey: Survey): boolean {
  const [own, ours] = [identifierOf(facts), clusterIdentifier(survey)]
  return own !== undefined && ours !== null && own !== ours
}
