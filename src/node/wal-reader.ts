import { ReplctlError } from '../errors.ts'
import {
  parseWalRecord,
  readWalEnd,
  usefulResourceManagers,
  type WalEnd,
  type WalRecord,
} from '../postgres/waldump.ts'
import { type Node, stateScript } from './node.ts'

/** Names of the files in pg_wal, with their sizes. */
export async function listWalFiles(node: Node): Promise<ReadonlyMap<string, number>> {
  const script = 'cd -- "$2/pg_wal/" && for f in [0-9A-F]*; do [ -f "$f" ] && wc -c "$f"; done; :'
  const text = await node.output(stateScript(node, 'list pg_wal', script, [node.settings.postgres.dataDir]))
  const lines = text.split('\n').map((line) => /^\s*(\d+) (\S+)$/.exec(line))
  return new Map(lines.flatMap((match) => (match === null ? [] : [[match[2] ?? '', Number(match[1])]])))
}

/**
 * Who gathers WAL, each in a folder of its own: a check, which another operator's --dry-run may run at the same time, must
 * not take the links away from under a salvage.
 */
export type WalViewName = 'wal-view' | 'wal-check'

/** A run of WAL segments in order, which may belong to several timelines: name to read it by → its file in pg_wal. */
export type WalView = ReadonlyMap<string, string>

/**
 * Makes links to the segments of pg_wal in a folder of ours, all named as of one timeline, so that pg_waldump reads
 * through a change of timelines: it takes the names, and asks of the pages only that their timeline never falls.
 */
export async function makeWalView(node: Node, view: WalView, name: WalViewName = 'wal-view'): Promise<void> {
  const script = `
rm -rf -- "$state/$3" && mkdir "$state/$3" && cd "$state/$3" || exit 74
while read -r name file; do ln -s "$2/pg_wal/$file" "$name" || exit 74; done
`
  const lines = [...view].map(([name, file]) => `${name} ${file}\n`).join('')
  await node.output(
    stateScript(node, 'gather the WAL', script, [node.settings.postgres.dataDir, name], lines || '\n'),
  )
}

export async function removeWalView(node: Node, name: WalViewName = 'wal-view'): Promise<void> {
  await node.output(stateScript(node, 'put the gathered WAL away', 'rm -rf -- "$state/$2"', [name]))
}

const readScript = `
cd "$state/$2" || exit 74
bin=$3 start=$4 first=$5 last=$6 useful=$7; shift 7
[ -x "$bin/pg_waldump" ] || exit 69
{ "$bin/pg_waldump" -p . -s "$start" "$@" "$first" "$last" 2>complaint; echo $? >status; } | grep -E "$useful"
cat complaint >&2
echo "status $(cat status)"
`

export interface WalReading {
  readonly binDirectory: string
  readonly view: WalView
  readonly start: string
  readonly name?: WalViewName
  /** Reads no further than so many records. */
  readonly limit?: number
}

/**
 * Gives every useful record of the view from `start` on, one by one; nothing of it stays in memory.
 * @throws {ReplctlError} `binaries-missing` where there is no pg_waldump
 */
export async function readWal(
  node: Node,
  { binDirectory, view, start, limit, name = 'wal-view' }: WalReading,
  take: (record: WalRecord) => void,
): Promise<WalEnd> {
  const names = [...view.keys()]
  const useful = limit === undefined ? `^rmgr: (${usefulResourceManagers.join('|')}) ` : '^rmgr: '
  const command = stateScript(node, `pg_waldump from ${start}`, readScript, [
    ...[name, binDirectory, start, names[0] ?? '', names.at(-1) ?? '', useful],
    ...(limit === undefined ? [] : ['-n', String(limit)]),
  ])
  const running = await node.start(command)
  let rest = ''
  let complaint = ''
  let status: number | null = null
  const takeLine = (line: string) => {
    const record = parseWalRecord(line)
    if (record !== undefined) take(record)
    else if (line.startsWith('status ')) status = Number(line.slice(7))
  }
  running.onStdout((chunk) => {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) takeLine(line)
  })
  running.onStderr((chunk) => {
    complaint = (complaint + chunk).slice(-4000)
  })
  const ended = await running.finished
  takeLine(rest)
  if (ended.status === 69) {
    throw new ReplctlError('binaries-missing', `there is no pg_waldump on ${node.name}`, {
      detail: `It was looked for in ${binDirectory}.`,
      hint: 'Install the package of the PostgreSQL server that brings it, then run the command again.',
      node: node.name,
    })
  }
  if (ended.status !== 0) {
    throw new ReplctlError('remote-command-failed', `could not read the WAL of ${node.name}`, {
      detail: `pg_waldump said: ${complaint.trim()}`,
      node: node.name,
    })
  }
  return readWalEnd(status, complaint)
}
