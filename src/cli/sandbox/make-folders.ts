import { chmod, mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Makes a folder and those above it that are missing. Everybody may pass through what is `isPublic`, whatever the umask says. */
export async function makeFolders(path: string, isPublic: boolean): Promise<void> {
  const first = await mkdir(path, { recursive: true, mode: 0o700 })
  if (first === undefined || !isPublic) return
  for (let at = path; at.length >= first.length; at = dirname(at)) await chmod(at, 0o755)
}
