import { join, resolve } from 'node:path'

/** The absolute path of a file on the control host: `~` is `home`, what is relative starts in `folder`. */
export function resolveLocalPath(path: string, folder: string, home: string): string {
  return path === '~' || path.startsWith('~/') ? join(home, path.slice(1)) : resolve(folder, path)
}
