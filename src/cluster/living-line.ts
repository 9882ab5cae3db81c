import { parseTimelineHistory, type TimelineHistory } from '../postgres/timeline-history.ts'
import { type BackupCatalog, historyOf, timelinesOf } from './backup-catalog.ts'
import type { Survey } from './facts.ts'
import type { NodeName } from './names.ts'

/** The timeline of the node that leads, with the text of its history file (null on timeline 1, or where it is missing). */
export interface PrimaryLine {
  readonly timeline: number
  readonly history: string | null
}

/** What the primary says of its own line; null where none answers. */
export function primaryLineOf(survey: Survey, primary: NodeName | null): PrimaryLine | null {
  const instance = survey.find((facts) => facts.name === primary)?.instance ?? null
  return instance === null ? null : { timeline: instance.timeline, history: instance.history }
}

/**
 * The timeline that the cluster is on: that of the primary. Where none answers, the newest that the archive knows; with a
 * primary a higher one there is somebody's who no longer leads, or of a node that was promoted beside the cluster.
 */
export function livingTimeline(catalog: BackupCatalog, primary: PrimaryLine | null): number {
  return primary?.timeline ?? timelinesOf(catalog).at(-1) ?? 1
}

/** The same with its ancestors; null where nobody has its history file. */
export function livingLine(catalog: BackupCatalog, primary: PrimaryLine | null): TimelineHistory | null {
  const timeline = livingTimeline(catalog, primary)
  const own = primary?.history ?? null
  if (own === null) return historyOf(catalog, timeline)
  try {
    return parseTimelineHistory(own, timeline)
  } catch {
    return historyOf(catalog, timeline)
  }
}
