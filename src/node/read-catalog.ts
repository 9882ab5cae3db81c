import type { BackupCatalog, BackupRequest, FoundBackup } from '../cluster/backup-catalog.ts'
import { shellScript } from '../command.ts'
import { type BackupMetadata, parseBackupCheck, parseBackupMetadata } from '../postgres/backup-metadata.ts'
import { isHistoryFile, isPartialFile, isSegmentFile, parseHistoryFileName } from '../postgres/wal-file.ts'
import type { Node } from './node.ts'

/** Everything that can be known without reading a backup's own files; small texts come along. */
const catalogScript = `
cd "$1" 2>/dev/null || exit 0
wanted=$2 how=$3
show() { echo "@@$1"; cat "$2" 2>/dev/null; echo; }
for system in *; do
  case $system in ''|*[!0-9]*) continue ;; esac
  if [ -n "$wanted" ] && [ "$system" != "$wanted" ]; then continue; fi
  if [ ! -d "$system/backup" ] && [ ! -d "$system/wal" ]; then continue; fi
  echo "@@system $system"
  for at in "$system"/backup/.incoming-*; do
    [ -d "$at" ] || continue
    show "incoming \${at##*/.incoming-}" "$at/request.json"
    # By the clock that wrote them: it was begun, or came to an end of its own, in the last six hours.
    for part in request.json taken proved; do
      [ -z "$(find "$at/$part" -mmin -360 2>/dev/null)" ] || { echo "@@fresh \${at##*/.incoming-}"; break; }
    done
  done
  for at in "$system"/backup/*; do
    [ -d "$at" ] || continue
    echo "@@backup \${at##*/}"
    echo "@@files"; ls -lnA "$at"
    show metadata "$at/backup.json"
    show check "$at/check.json"
  done
  [ "$how" = backups ] || { echo "@@wal"; ls "$system/wal" 2>/dev/null; }
  for at in "$system"/wal/*.history; do [ -f "$at" ] && show "history \${at##*/}" "$at"; done
done
:
`

/** Reads what the archive holds, of one system identifier or of all. */
export async function readCatalogs(
  archive: Node,
  dir: string,
  systemIdentifier = '',
): Promise<readonly BackupCatalog[]> {
  const command = shellScript(`look at the backups in ${dir}`, catalogScript, [dir, systemIdentifier, 'all'])
  return parseCatalogs(await archive.output(command, { timeoutMs: 120_000 }))
}

/** The catalog of one system identifier, empty where the archive has nothing of it. */
export async function readCatalog(
  archive: Node,
  dir: string,
  systemIdentifier: string,
): Promise<BackupCatalog> {
  const [found] = await readCatalogs(archive, dir, systemIdentifier)
  return found ?? emptyCatalog(systemIdentifier)
}

/** The backups of one system identifier, and its timelines, without the WAL, which may be many names: quick enough for `status`. */
export async function readBackups(
  archive: Node,
  dir: string,
  systemIdentifier: string,
): Promise<BackupCatalog> {
  const args = [dir, systemIdentifier, 'backups']
  const command = shellScript(`look for backups in ${dir}`, catalogScript, args)
  const [found] = parseCatalogs(await archive.output(command, { timeoutMs: 4_000 }))
  return found ?? emptyCatalog(systemIdentifier)
}

const emptyCatalog = (systemIdentifier: string): BackupCatalog => ({
  systemIdentifier,
  ...{ backups: [], incoming: [], segments: new Set(), partials: new Set(), histories: new Map() },
})

interface Section {
  readonly name: string
  readonly value: string
  readonly text: string
}

/** Reads what {@link catalogScript} printed. */
export function parseCatalogs(output: string): readonly BackupCatalog[] {
  const catalogs: BackupCatalog[] = []
  let sections: Section[] = []
  let system: string | null = null
  const close = () => {
    if (system !== null) catalogs.push(makeCatalog(system, sections))
    sections = []
  }
  for (const part of output.split(/^@@/m).slice(1)) {
    const at = part.indexOf('\n')
    const [name = '', ...words] = part.slice(0, at).split(' ')
    const section = { name, value: words.join(' '), text: part.slice(at + 1) }
    if (name === 'system') {
      close()
      system = section.value
    } else {
      sections.push(section)
    }
  }
  close()
  return catalogs
}

function makeCatalog(systemIdentifier: string, sections: readonly Section[]): BackupCatalog {
  const named = (name: string) => sections.filter((section) => section.name === name)
  const starts = sections.flatMap((section, index) => (section.name === 'backup' ? [index] : []))
  const wal = (named('wal')[0]?.text ?? '').split('\n').map((name) => name.replace(/\.(gz|lz4|zst)$/, ''))
  return {
    systemIdentifier,
    backups: starts.map((start) =>
      makeBackup(sections[start]?.value ?? '', sections.slice(start + 1, start + 4)),
    ),
    incoming: named('incoming').map(({ value, text }) => ({
      ...{ id: value, request: readRequest(text) },
      isFresh: named('fresh').some((one) => one.value === value),
    })),
    segments: new Set(wal.filter(isSegmentFile)),
    partials: new Set(wal.filter(isPartialFile).map((name) => name.slice(0, 24))),
    histories: new Map(
      named('history')
        .filter((section) => isHistoryFile(section.value))
        .map((section) => [parseHistoryFileName(section.value), section.text]),
    ),
  }
}

function readRequest(text: string): BackupRequest | null {
  try {
    return JSON.parse(text) as BackupRequest
  } catch {
    return null
  }
}

function makeBackup(id: string, parts: readonly Section[]): FoundBackup {
  const text = (name: string) => parts.find((part) => part.name === name)?.text ?? ''
  const { metadata, fault } = readMetadata(text('metadata'))
  return { id, metadata, fault, files: readListing(text('files')), check: parseBackupCheck(text('check')) }
}

function readMetadata(text: string): { metadata: BackupMetadata | null; fault: string | null } {
  if (text.trim() === '') return { metadata: null, fault: 'it is missing, empty, or cannot be read' }
  try {
    return { metadata: parseBackupMetadata(text), fault: null }
  } catch (thrown) {
    return { metadata: null, fault: thrown instanceof Error ? thrown.message : String(thrown) }
  }
}

/** Lines of `ls -lnA`: only plain files have a size that says anything. */
function readListing(text: string): Map<string, number | null> {
  const lines = text
    .split('\n')
    .map((line) => /^(\S)\S*\s+\d+\s+\d+\s+\d+\s+(\d+)\s+\S+\s+\S+\s+\S+\s(.*)$/.exec(line))
  return new Map(
    lines.flatMap((match) =>
      match === null ? [] : [[match[3] ?? '', match[1] === '-' ? Number(match[2]) : null] as const],
    ),
  )
}
