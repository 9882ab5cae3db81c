import { ReplctlError } from '../errors.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { checksOf, type DoctorCheck } from './doctor-check.ts'
import type { ExaminedNode, ExaminedPrimary, Reach } from './doctor-facts.ts'
import type { InstalledBinaries } from './facts.ts'
import { describeRoom, hintForRoom, tooSmall } from './room.ts'

/** Clocks farther apart than this make times in logs, lags and a restore's --to-time misleading. */
const farApartMs = 2_000

/** What has to be the same on all hosts: major version, locales, clocks. `chosen` are the nodes to tell about. */
export function judgeAlike(
  nodes: readonly ExaminedNode[],
  chosen: readonly string[],
  primary: ExaminedPrimary | null,
): readonly DoctorCheck[] {
  const reached = nodes.filter((node) => node.probe !== null)
  const told = reached.filter((node) => chosen.includes(node.facts.name))
  return told.flatMap((node) => [
    ...judgeVersion(node, reached, primary?.name ?? null),
    judgeLocales(node, reached, primary),
    ...judgeRoom(node, primary),
    ...judgeClock(node, reached),
  ])
}

function judgeVersion(
  { facts, settings }: ExaminedNode,
  reached: readonly ExaminedNode[],
  primary: string | null,
): DoctorCheck[] {
  const { fine, bad, doubtful } = checksOf(facts.name)
  const leader =
    reached.find((node) => node.facts.name === primary) ??
    reached.find((node) => node.facts.binaries !== null)
  const leaders =
    leader?.facts.dataMajor ?? leader?.settings.postgres.version ?? leader?.facts.binaries?.major
  const major = settings.postgres.version ?? leaders
  if (facts.installed.length === 0 || leader === undefined || major === undefined) return []
  const own = newestOf(facts.installed, major)
  const hasData = facts.dataMajor !== null && facts.dataMajor !== major
  if (own === null || hasData) {
    const has = hasData
      ? `Its data directory is of PostgreSQL ${facts.dataMajor}`
      : `There is: ${describe(facts.installed)}`
    const error = new ReplctlError('version-mismatch', `${facts.name} does not have PostgreSQL ${major}`, {
      detail: `${has}; ${settings.postgres.version === undefined ? `${leader.facts.name} has ${major}` : `the inventory says ${major}`}.`,
      hint: `Install PostgreSQL ${major} there, or set postgres.version and bin_dir so that all nodes have the same.`,
      node: facts.name,
    })
    return [bad('version', error)]
  }
  if (major !== leaders) {
    const error = new ReplctlError(
      'version-mismatch',
      `${facts.name} is to have PostgreSQL ${major}, and ${leader.facts.name} has ${leaders}`,
      {
        detail: `The inventory says ${major}. Replication works within one major version only.`,
        hint: 'Set postgres.version so that all nodes have the same, or leave it out.',
        node: facts.name,
      },
    )
    return [bad('version', error)]
  }
  const theirs = newestOf(leader.facts.installed, major)
  if (theirs !== null && own.minor < theirs.minor) {
    const error = new ReplctlError(
      'minor-version-older',
      `${facts.name} has an older minor version than ${leader.facts.name}`,
      {
        detail: `${facts.name} has ${own.version}, ${leader.facts.name} has ${theirs.version}.`,
        hint: `Update PostgreSQL on ${facts.name}; standbys are to be updated first.`,
        node: facts.name,
      },
    )
    return [doubtful('version', error)]
  }
  return [fine('version', `PostgreSQL ${own.version}, as on the others`)]
}

const newestOf = (installed: readonly InstalledBinaries[], major: number): InstalledBinaries | null =>
  installed.filter((one) => one.major === major).toSorted((a, b) => b.minor - a.minor)[0] ?? null

const describe = (installed: readonly InstalledBinaries[]): string =>
  installed.map((one) => `${one.version} in ${one.directory}`).join(', ')

/** `C.UTF-8` and `C.utf8` are one locale; C and POSIX are everywhere. */
const plainLocale = (name: string): string =>
  name.toLowerCase().replace(/\.(.*)$/, (_, charset: string) => `.${charset.replaceAll(/[^a-z0-9@]/g, '')}`)

function judgeLocales(
  { facts, probe, settings }: ExaminedNode,
  reached: readonly ExaminedNode[],
  primary: ExaminedPrimary | null,
): DoctorCheck {
  const { fine, bad } = checksOf(facts.name)
  const leader = reached.find((node) => node.facts.binaries !== null)
  const major =
    settings.postgres.version ?? leader?.settings.postgres.version ?? leader?.facts.binaries?.major ?? 0
  if (primary === null && capabilitiesOf(major).builtinLocaleProvider) {
    return fine('locale', `C; PostgreSQL ${major} brings its own C.UTF-8`)
  }
  const has = (node: ExaminedNode['probe'], locale: string) =>
    ['c', 'posix'].includes(plainLocale(locale)) ||
    (node?.locales ?? []).some((one) => plainLocale(one) === plainLocale(locale))
  const needed =
    primary?.needs.locales ?? (reached.some((node) => has(node.probe, 'C.UTF-8')) ? ['C.UTF-8'] : [])
  const missing = needed.filter((locale) => !has(probe, locale))
  if (missing.length === 0) {
    return fine(
      'locale',
      needed.length === 0 ? 'C, as C.UTF-8 is on no node' : `${needed.join(', ')} is there`,
    )
  }
  const elsewhere = reached
    .filter((node) => missing.every((one) => has(node.probe, one)))
    .map((node) => node.facts.name)
  const error = new ReplctlError('locale-missing', `${facts.name} lacks the locale ${missing.join(', ')}`, {
    detail:
      primary === null
        ? `${elsewhere.join(', ')} has it, and initdb would choose it there: a copy could not be opened on ${facts.name}.`
        : `The primary's databases use it: a copy of them cannot be opened on ${facts.name}.`,
    hint: 'Make it there: localedef, or on Debian: dpkg-reconfigure locales',
    node: facts.name,
  })
  return bad('locale', error)
}

/** A node that is not built yet needs room for a copy. */
function judgeRoom({ facts, settings }: ExaminedNode, primary: ExaminedPrimary | null): DoctorCheck[] {
  const rooms = primary?.rooms.get(facts.name) ?? []
  const isBuilt = facts.dataDirectoryState === 'instance'
  if (primary === null || isBuilt || rooms.length === 0) return []
  const { fine, bad } = checksOf(facts.name)
  const [short] = tooSmall(rooms)
  if (short === undefined) {
    return [fine('room', `for a copy of ${primary.name} ${rooms.map(describeRoom).join('; ')}`)]
  }
  const error = new ReplctlError('disk-full', `${facts.name} has no room for a copy of ${primary.name}`, {
    detail: `${describeRoom(short)}.`,
    hint: hintForRoom(short, settings.postgres.dataDir),
    node: facts.name,
  })
  return [bad('room', error)]
}

function judgeClock({ facts, probe }: ExaminedNode, reached: readonly ExaminedNode[]): DoctorCheck[] {
  const { fine, doubtful } = checksOf(facts.name)
  const offset = probe?.clockOffsetMs ?? null
  const offsets = reached.flatMap((node) => node.probe?.clockOffsetMs ?? []).toSorted((a, b) => a - b)
  const middle = offsets[Math.floor((offsets.length - 1) / 2)]
  if (offset === null || middle === undefined || probe === null) return []
  if (offsets.length < 2) return [fine('clock', 'there is no other clock to compare it with')]
  const apartMs = Math.max(...offsets.map((one) => Math.abs(offset - one))) - probe.clockDoubtMs
  const ownMs = offset - middle
  // Of several clocks the one that is off is told, not those that agree; of two, both.
  const isOff = apartMs > farApartMs && (offsets.length === 2 || Math.abs(ownMs) > farApartMs)
  if (!isOff) return [fine('clock', 'agrees with the other nodes')]
  const seconds = (Math.abs(offsets.length === 2 ? apartMs : ownMs) / 1000).toFixed(1)
  const error = new ReplctlError('clock-skew', `the clock of ${facts.name} is ${seconds} s off`, {
    detail: 'Compared with the other nodes. Times in logs, replay lag and a delay are wrong by that much.',
    hint: 'Let chrony, systemd-timesyncd or ntpd keep the clocks together.',
    node: facts.name,
  })
  return [doubtful('clock', error)]
}

/** What a try to reach another node's PostgreSQL says. `isRunning`: it should have answered. */
export function judgeReach(reach: Reach, isRunning: boolean): DoctorCheck {
  const { from, to, address, port, isLogin, outcome, said } = reach
  const { fine, bad } = checksOf(from)
  const at = `${address}:${port}`
  const check = isLogin ? `login to ${to}` : `reach ${to}`
  if (outcome === 'logged-in' && isLogin) return fine(check, `a replication login to ${at} works`)
  const isFine = outcome === 'logged-in' || outcome === 'rejected'
  if (!isLogin && isFine) return fine(check, `PostgreSQL answers at ${at}`)
  if (outcome === 'refused' && !isRunning) {
    return fine(
      check,
      `the host answers; nothing listens on ${at} yet, so the port itself can be tried only later`,
    )
  }
  const hints: Readonly<Record<Reach['outcome'], string>> = {
    unresolved: `Let ${from} resolve the name, or set "address" of ${to} in the inventory.`,
    silent: `Look for a firewall between ${from} and ${to}; if nodes reach it by another address, set "address" in the inventory.`,
    refused: `Nothing listens there: look at listen_addresses and the port of ${to}.`,
    rejected: `Look at pg_hba.conf of ${to} and at the replication role.`,
    answers: `What answers at ${at} may not be PostgreSQL: correct the address or the port of ${to}.`,
    'no-psql': `It could not be tried: there is no psql on ${from} where bin_dir says.`,
    'logged-in': '',
  }
  const error = new ReplctlError(
    'replication-login-failed',
    `${from} cannot ${isLogin ? 'log in for replication at' : 'reach'} ${to} (${at})`,
    {
      detail: said,
      hint: hints[outcome],
      node: from,
    },
  )
  return bad(check, error)
}
