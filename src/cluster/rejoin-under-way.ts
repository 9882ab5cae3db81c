import type { NodeFacts, RejoinMark } from './facts.ts'

/**
 * The rejoin that has begun to replace what is in the data directory. Null also where its mark is of an earlier life: a directory
 * that is marked as built has all that a clone was to bring, whoever ended it, and a rewind is of the one directory that it
 * was begun in. What stands there by now is to be judged by what it holds.
 */
export function rejoinUnderWay({ rejoin, mark, dataDirectoryInode }: NodeFacts): RejoinMark | null {
  if (rejoin === null) return null
  if (rejoin.method === 'rewind') {
    return rejoin.inode === undefined || rejoin.inode === dataDirectoryInode ? rejoin : null
  }
  const isBuilt = mark?.phase === 'done' && mark.inode !== '' && mark.inode === dataDirectoryInode
  return isBuilt ? null : rejoin
}
