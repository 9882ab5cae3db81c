import type { AnyAuthMethod, ParsedKey } from 'ssh2'
import { fingerprintOf } from './known-hosts.ts'
import { type IdentityFile, parsePrivateKey, readIdentityFile } from './private-key.ts'
import { type AgentKeys, askAgent } from './ssh-agent.ts'
import { type SshHop, usualIdentities } from './ssh-route.ts'

/** One way to prove who we are. */
export interface LoginAttempt {
  /** For the error when all were refused, e.g. `~/.ssh/id_ed25519 (SHA256:…)`. */
  readonly label: string
  prepare(): Promise<AnyAuthMethod | undefined>
}

export interface LoginPlan {
  readonly attempts: readonly LoginAttempt[]
  /** Why some keys were not even tried. Grows while encrypted keys are opened. */
  readonly skipped: string[]
}

/**
 * Plans the login in OpenSSH's order: keys that are named, by the agent where it holds them; then the agent's
 * others, unless IdentitiesOnly; then the usual files. Keys named go before the agent's others even where only
 * their file is there: sshd hangs up after six refusals.
 */
export async function planLogin(
  hop: SshHop,
  home: string,
  passphrase: string | undefined,
): Promise<LoginPlan> {
  const skipped = hop.certificateFiles.map((path) => `${path}: OpenSSH certificates are not supported`)
  const areNamed = hop.identityFiles.length > 0
  const paths = areNamed ? hop.identityFiles : usualIdentities(home)
  const [files, agent] = await Promise.all([
    Promise.all(paths.map(readIdentityFile)),
    hop.agent === undefined ? undefined : askAgent(hop.agent).catch((error: Error) => error),
  ])
  if (agent instanceof Error) skipped.push(`ssh-agent at ${hop.agent}: ${agent.message}`)
  const keys = agent === undefined || agent instanceof Error ? undefined : agent
  if (keys?.keys.length === 0) skipped.push(`ssh-agent at ${hop.agent}: holds no keys`)
  const context: PlanContext = { user: hop.user, keys, passphrase, skipped, areNamed }
  const own = files.flatMap((file) => attemptWith(file, context))
  const held = files.flatMap((file) => publicKeyOf(file) ?? [])
  const others = hop.identitiesOnly
    ? []
    : (keys?.keys ?? []).filter((key) => !held.some((blob) => isKey(key, blob)))
  const byAgent = others.map((key) => agentAttempt(hop.user, key, keys, undefined))
  return { attempts: areNamed ? [...own, ...byAgent] : [...byAgent, ...own], skipped }
}

interface PlanContext {
  readonly user: string
  readonly keys: AgentKeys | undefined
  readonly passphrase: string | undefined
  readonly skipped: string[]
  readonly areNamed: boolean
}

function attemptWith(file: IdentityFile, context: PlanContext): readonly LoginAttempt[] {
  const { user, keys, passphrase, skipped, areNamed } = context
  if (file.is === 'usable')
    return [{ label: labelOf(file.path, file.key), prepare: async () => publicKeyMethod(user, file.key) }]
  const blob = publicKeyOf(file)
  const held = blob && keys?.keys.find((key) => isKey(key, blob))
  if (held) return [agentAttempt(user, held, keys, file.path)]
  if (file.is === 'public') {
    skipped.push(`${file.path}: only its public half is there, and ssh-agent does not hold it`)
    return []
  }
  if (file.is === 'unusable') {
    if (areNamed || !file.isMissing) skipped.push(`${file.path}: ${file.why}`)
    return []
  }
  if (passphrase === undefined) {
    skipped.push(`${file.path}: encrypted, and neither ssh-agent nor $REPLCTL_SSH_PASSPHRASE opens it`)
    return []
  }
  const open = async (): Promise<AnyAuthMethod | undefined> => {
    const key = await parsePrivateKey(file.text, passphrase)
    if (!(key instanceof Error)) return publicKeyMethod(user, key)
    skipped.push(`${file.path}: encrypted, and $REPLCTL_SSH_PASSPHRASE does not open it`)
    return undefined
  }
  return [{ label: file.path, prepare: open }]
}

function agentAttempt(
  username: string,
  key: ParsedKey,
  keys: AgentKeys | undefined,
  path: string | undefined,
): LoginAttempt {
  const prepare = async (): Promise<AnyAuthMethod | undefined> =>
    keys && { type: 'agent', username, agent: keys.offering(key) }
  const label = path === undefined ? labelOf(key.comment || key.type, key) : labelOf(path, key)
  return { label: `${label} in ssh-agent`, prepare }
}

function publicKeyMethod(username: string, key: ParsedKey): AnyAuthMethod {
  return { type: 'publickey', username, key }
}

function publicKeyOf(file: IdentityFile): Buffer | undefined {
  if (file.is === 'usable') return file.key.getPublicSSH()
  return file.is === 'unusable' ? undefined : file.publicKey
}

function isKey(key: ParsedKey, blob: Buffer): boolean {
  return key.getPublicSSH().equals(blob)
}

function labelOf(name: string, key: ParsedKey): string {
  return `${name} (${fingerprintOf(key.getPublicSSH())})`
}
