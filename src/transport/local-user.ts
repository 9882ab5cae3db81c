import { userInfo } from 'node:os'

/** The user of the operating system who runs this process. */
export interface LocalUser {
  readonly name: string
  readonly home: string
  /** -1 where nobody could say it. */
  readonly uid: number
}

/**
 * Who runs this process. In a container (`docker run --user 12345`) there may be no entry in /etc/passwd, and Node.js throws:
 * then it is what the environment says. `uid`: for that case, if known.
 */
export function localUser(env: Readonly<Record<string, string | undefined>>, uid = -1): LocalUser {
  try {
    const { username, homedir, ...own } = userInfo()
    return { name: username, home: homedir, uid: own.uid }
  } catch {
    return {
      name: env.LOGNAME || env.USER || (uid < 0 ? 'unknown' : String(uid)),
      home: env.HOME || '/',
      uid,
    }
  }
}
