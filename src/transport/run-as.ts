import type { RunAs } from '../command.ts'
import { ReplctlError } from '../errors.ts'

/** Who we are on the host, and who PostgreSQL runs as there. */
export interface LoginIdentity {
  readonly loginUser: string
  readonly isRoot: boolean
  readonly osUser: string
}

/** How the login user becomes the user a command runs as. */
export interface Elevation {
  readonly by: 'none' | 'runuser' | 'sudo'
  readonly user: string
  readonly isOsUser: boolean
}

/** Decides how a command comes to run as `runAs`; `runuser` falls back on sudo where there is none. */
export function chooseElevation({ loginUser, isRoot, osUser }: LoginIdentity, runAs: RunAs): Elevation {
  const user = { 'os-user': osUser, root: 'root', login: loginUser }[runAs]
  const isOsUser = user === osUser
  if (user === loginUser || (isRoot && user === 'root')) return { by: 'none', user, isOsUser }
  return { by: isRoot ? 'runuser' : 'sudo', user, isOsUser }
}

/** What a shell line left that ended before the command began. */
export interface FalseStart {
  readonly host: string
  readonly title: string
  readonly status: number | null
  readonly noise: string
}

/** The error for a command that never began: no sudo rights, or a login without a usable shell. */
export function commandNotBegun(
  identity: LoginIdentity,
  elevation: Elevation,
  start: FalseStart,
): ReplctlError {
  const { loginUser } = identity
  const said = lastLines(start.noise)
  const ended = start.status === null ? 'It was killed' : `It ended with status ${start.status}`
  const detail = said === '' ? `${ended} and said nothing.` : `It said: ${said}`
  if (elevation.by === 'none')
    return new ReplctlError('auth-refused', `login "${loginUser}" on ${start.host} cannot run commands`, {
      detail: `The login shell ended before it started /bin/sh for: ${start.title}. ${detail}`,
      hint: `Give "${loginUser}" a login shell without a forced command, and try: ssh ${loginUser}@${start.host} /bin/sh -c true`,
    })
  return new ReplctlError(
    'sudo-refused',
    `login "${loginUser}" on ${start.host} cannot run commands as "${elevation.user}"`,
    { detail: `${start.title} was not started. ${detail}`, hint: sudoHint(identity, elevation, said) },
  )
}

function sudoHint({ loginUser, osUser }: LoginIdentity, { by, user }: Elevation, said: string): string {
  if (/unknown user|does not exist/.test(said))
    return `Create the user "${user}" there, or set postgres.os_user.`
  if (by === 'runuser') return `Run there, as root: runuser -u ${user} -- true`
  if (/must have a tty/.test(said)) return `Add this line with visudo: Defaults:${loginUser} !requiretty`
  if (/sudo.*not found|No such file|Unknown command/i.test(said))
    return `Install sudo there, or log in as "${osUser}" or root (ssh.user).`
  return `Add this line with visudo: ${loginUser} ALL=(ALL) NOPASSWD: ALL`
}

/** The end of what was said, on one line: enough to see the cause, too little to flood a terminal. */
function lastLines(text: string): string {
  const lines = text.split('\n').map((line) => line.trim())
  const kept = lines.filter((line) => line !== '').slice(-4)
  return kept.join(' | ').slice(-400)
}
