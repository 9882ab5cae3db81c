/** What a copy of an instance takes: its data directory, and each tablespace that lies elsewhere. */
export interface CopySize {
  readonly dataBytes: number
  readonly tablespaces: readonly { readonly location: string; readonly bytes: number }[]
}

/** A folder that a copy fills, or will: which file system it is on, and what is free there. */
export interface Place {
  readonly path: string
  /** The same for two folders of one file system. */
  readonly fileSystem: string
  readonly freeBytes: number
  /** What an earlier try of this copy left there: the next begins with removing it. */
  readonly begunBytes: number
}

/** One file system and what a copy needs of it. `paths` begins with the data directory where that is there, too. */
export interface Room {
  readonly paths: readonly string[]
  readonly neededBytes: number
  readonly freeBytes: number
}

/** Where less is free the next WAL segments do not fit. */
export const fullBytes = 64 * 2 ** 20

/** For the WAL that arrives meanwhile. */
const besideDataBytes = 64 * 2 ** 20

/** Adds up what a copy needs on each file system; a folder of which nothing is known is left out. */
export function roomFor(size: CopySize, dataDir: string, places: readonly Place[]): readonly Room[] {
  const wanted = (path: string) =>
    path === dataDir
      ? size.dataBytes * 1.05 + besideDataBytes
      : (size.tablespaces.find((one) => one.location === path)?.bytes ?? 0) * 1.05
  const systems = [...new Set(places.map((place) => place.fileSystem))]
  return systems.map((system) => {
    const here = places.filter((place) => place.fileSystem === system)
    return {
      paths: here.map((place) => place.path),
      neededBytes: sum(here.map((place) => wanted(place.path))),
      freeBytes:
        Math.min(...here.map((place) => place.freeBytes)) + sum(here.map((place) => place.begunBytes)),
    }
  })
}

/** File systems on which a copy does not fit. */
export function tooSmall(rooms: readonly Room[]): readonly Room[] {
  return rooms.filter((room) => room.freeBytes < room.neededBytes)
}

/** e.g. `81 MiB are needed and 70 MiB are free where /data/pg is`. */
export function describeRoom({ paths, neededBytes, freeBytes }: Room): string {
  const mebibytes = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`
  const are = paths.length > 1 ? 'are' : 'is'
  return `${mebibytes(neededBytes)} are needed and ${mebibytes(freeBytes)} are free where ${paths.join(', ')} ${are}`
}

/** What to do about a file system that is too small. */
export function hintForRoom({ paths }: Room, dataDir: string): string {
  return paths.includes(dataDir)
    ? 'Free some space there, or choose another data_dir.'
    : 'Free some space there, or mount a larger file system in its place.'
}

const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0)
