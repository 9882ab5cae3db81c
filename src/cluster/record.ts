import type { ClusterRecord, Survey } from './facts.ts'

/** The newest record of the cluster among these nodes. */
export function commonRecord(survey: Survey): ClusterRecord | null {
  const records = survey.map((facts) => facts.record).filter((record) => record !== null)
  return records.toSorted((a, b) => b.generation - a.generation)[0] ?? null
}
