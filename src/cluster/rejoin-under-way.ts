import type { NodeFacts, RejoinMark } from './facts.ts'

/**
 * The rejoin that has begun to replace what is in the data directory. Null also where its mark is of an earlier life: a directory
 * that is marked as built has all that a clone was to bring, whoever ended it, and a rewind is of the one directory that it
 * was begun in. What stands there by now is to be judged by what it holds.
 */
export function rejoinUnderWay({ rejoin, mark, dataDirectoryInode }: NodeFacts): RejoinMark | null {
  if (rejoin === null || rejoin.phase === 'whole') return null
  if (rejoin.method === 'rewind') {
    return rejoin.inode === undefined || rejoin.inode === dataDirectoryInode ? rejoin : null
  }
  const isBuilt = mark?.phase === 'done' && mark.inode !== '' && mark.inode === dataDirectoryInode
  return isBuilt ? null : rejoin
}

/**
 * The rejoin that has replaced what is in the data directory, and was interrupted before it told what it had discarded for that.
 * Null where its mark is of another directory than the one that is there.
 */
export function rejoinToTell(facts: NodeFacts): RejoinMark | null {
  const { rejoin, dataDirectoryInode } = facts
  if (rejoin === null || rejoinUnderWay(facts) !== null) return null
  // A clone that is marked as built is whole, whether or not its mark says so yet.
  if (rejoin.phase === 'recloning') return rejoin
  return rejoin.phase === 'whole' && rejoin.inode === dataDirectoryInode ? rejoin : null
}
