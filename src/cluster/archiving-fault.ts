import { ReplctlError } from '../errors.ts'
import { archiveConnectionName, archiveFiles, runsScript } from '../postgres/archive.ts'
import type { NodeFacts } from './facts.ts'
import type { ArchiveSettings, Inventory, NodeSettings } from './inventory.ts'
import type { Problem } from './problem.ts'
import { stateDirectoryOf } from './state-directory.ts'

/**
 * What keeps a running node from the archive of the inventory, whether it leads or may come to; null: nothing that can be seen
 * beforehand. PostgreSQL itself reports none of it. An error where nothing is archived now.
 */
export function archivingFault(
  inventory: Inventory,
  facts: NodeFacts,
): readonly [ReplctlError, Problem['severity']] | null {
  const { archive } = inventory
  const node = inventory.nodes.find((one) => one.name === facts.name)
  if (archive === undefined || node === undefined || facts.instance === null) return null
  const push = archive.mode === 'push' ? pushFault(archive, node, facts) : null
  const found = push ?? scriptFault('fetch', archive, node, facts)
  if (found === null) return null
  const { name, instance } = facts
  const isLeading = !instance.isInRecovery
  const message =
    push === null
      ? `${name} cannot fetch WAL from the archive`
      : isLeading
        ? `${name} does not archive its WAL`
        : `${name} would not archive its WAL if it led`
  const error = new ReplctlError('archive-failing', message, { ...found, node: name })
  return [error, isLeading && push !== null ? 'error' : 'warning']
}

interface Fault {
  readonly detail: string
  readonly hint: string
}

function pushFault(archive: ArchiveSettings, node: NodeSettings, facts: NodeFacts): Fault | null {
  const {
    archive_mode: mode,
    archive_command: command,
    archive_library: library,
  } = facts.instance?.settings ?? {}
  const setUp = waysToSetUp(facts)
  if (mode?.value === 'off') {
    const restart = `restart PostgreSQL on ${facts.name}${facts.instance?.isInRecovery ? '' : ', a primary after a switchover'}`
    return mode.isPendingRestart
      ? {
          detail: 'archive_mode is on in its files and off in force.',
          hint: `A server takes it over when it starts: ${restart}.`,
        }
      : { detail: 'archive_mode is off.', hint: `${setUp}; then ${restart}.` }
  }
  const [other = ''] = [library?.value, command?.value].filter((value) => value !== undefined && value !== '')
  const isOurs = other === command?.value && runsScript(other, scriptOf('push', node, facts))
  if (command === undefined || isOurs) return scriptFault('push', archive, node, facts)
  return other === ''
    ? { detail: 'archive_command is empty.', hint: setUp }
    : {
        detail: `What archives there is not replctl's: "${other}".`,
        hint: `Take that out where it stands, as a rule: ALTER SYSTEM RESET archive_command; then: ${setUp}`,
      }
}

/** Missing, or written for an archive that the inventory does not name any more. */
function scriptFault(
  kind: 'push' | 'fetch',
  archive: ArchiveSettings,
  node: NodeSettings,
  facts: NodeFacts,
): Fault | null {
  const systemIdentifier = facts.instance?.systemIdentifier
  if (facts.archiveScripts === undefined || systemIdentifier === undefined) return null
  const live = facts.archiveScripts[kind]
  if (live === connectionOf(archive, systemIdentifier)) return null
  const script = scriptOf(kind, node, facts)
  const detail =
    live === null
      ? `${script} is missing, or may not be run.`
      : `${script} is of another archive: archive.host, port, user or dir was another one when it was written.`
  return { detail, hint: waysToSetUp(facts) }
}

const connectionOf = ({ address, port, user, dir }: ArchiveSettings, systemIdentifier: string): string =>
  archiveConnectionName({ host: address, port, user, dir, systemIdentifier })

/** Whether what is on a node to fetch WAL, running or not, asks the archive of the inventory for the node's own cluster. */
export function fetchesFrom(archive: ArchiveSettings, facts: NodeFacts): boolean {
  const systemIdentifier = facts.instance?.systemIdentifier ?? facts.control?.systemIdentifier
  if (systemIdentifier === undefined) return false
  return facts.archiveScripts?.fetch === connectionOf(archive, systemIdentifier)
}

const scriptOf = (kind: 'push' | 'fetch', node: NodeSettings, { home }: NodeFacts): string =>
  `${stateDirectoryOf(home, node)}/${archiveFiles[kind]}`

const waysToSetUp = ({ name, instance }: NodeFacts): string =>
  `Set it up: ${instance?.isInRecovery === true ? 'replctl add-standby' : 'replctl init primary'} ${name}`
