import type { BackupMetadata } from '../postgres/backup-metadata.ts'
import type { CopySize } from './room.ts'

/**
 * What a restore takes, and where. A chain is unpacked first, into a folder of its own (`chainAt`), and then joined to
 * something about as large as its full backup.
 * @param placeOf where a tablespace goes; null: below the data directory
 */
export function restoreSize(
  chain: readonly BackupMetadata[],
  placeOf: (oid: string) => string | null,
  chainAt: string,
): CopySize {
  const [full] = chain
  if (full === undefined) throw new RangeError('a restore has a backup')
  const elsewhere = full.tablespaces.flatMap(({ oid }) => {
    const location = placeOf(oid)
    return location === null ? [] : [{ location, bytes: tablespaceBytes(full, oid) }]
  })
  const unpacked = chain.reduce((sum, one) => sum + one.dataBytes, 0)
  return {
    dataBytes: full.dataBytes - elsewhere.reduce((sum, one) => sum + one.bytes, 0),
    tablespaces: [...elsewhere, ...(chain.length > 1 ? [{ location: chainAt, bytes: unpacked }] : [])],
  }
}

/** As it was measured; of a backup that did not say yet: by its share of the packed bytes. */
function tablespaceBytes({ tablespaces, files, dataBytes }: BackupMetadata, oid: string): number {
  const measured = tablespaces.find((one) => one.oid === oid)?.bytes
  if (measured !== undefined) return measured
  const packed = (isMeant: (name: string) => boolean) =>
    files.filter(({ name }) => isMeant(name)).reduce((sum, file) => sum + file.bytes, 0)
  const all = packed((name) => name.includes('.tar'))
  return all === 0 ? 0 : Math.round((dataBytes * packed((name) => name.startsWith(`${oid}.tar`))) / all)
}
