import { ReplctlError } from '../errors.ts'
import { archiveHost } from './names.ts'

/** An archive whose user may not write to it, or not make it. `place`: the folder that is in the way, where that is known. */
export function archiveClosed(archive: {
  readonly dir: string
  readonly host: string
  readonly user: string
  readonly place?: string
}): ReplctlError {
  const { dir, host, user, place } = archive
  return new ReplctlError('archive-failing', `cannot write to the archive ${dir} on ${host}`, {
    detail:
      place === undefined
        ? `"${user}" may not write there, nor make it.`
        : `"${user}" may not write to ${place}.`,
    hint: `Make it there, as root: install -d -m 0700 -o ${user} ${dir}`,
    node: archiveHost,
  })
}
