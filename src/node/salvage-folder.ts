import type { RunningCommand } from '../transport/transport.ts'
import { commandFailed, type Node, stateScript } from './node.ts'

/** Appends text to a file of the node, as fast as that takes it. */
export interface TextWriter {
  write(text: string): Promise<void>
  /** Resolves when all is in the file. @throws where it could not be written */
  close(): Promise<void>
}

/** Text is gathered to pieces of this size: one write for each row would cost more than the row. */
const pieceBytes = 128 * 1024

/** The folder of a salvage while it is made: `salvage/<id>.partial` in the state directory, 0700; renamed when complete. */
export class SalvageFolder {
  readonly #node: Node
  readonly #id: string

  constructor(node: Node, id: string) {
    this.#node = node
    this.#id = id
  }

  /** Begins anew: what an interrupted run left goes away. A complete salvage under this name stays until it is replaced. */
  async begin(): Promise<void> {
    await this.#run('begin a salvage', 'rm -rf -- "$dir" && mkdir -p "$dir/wal"')
  }

  /** Copies WAL files and makes them durable, before anything else is done to the instance. */
  async keepWal(files: readonly string[]): Promise<void> {
    const script = `
while read -r file; do
  [ -n "$file" ] || continue
  cp -- "$3/pg_wal/$file" "$dir/wal/$file" && cmp -s -- "$3/pg_wal/$file" "$dir/wal/$file" || exit 74
done
chmod 600 "$dir/wal"/* 2>/dev/null
sync -f "$dir/wal" 2>/dev/null || sync`
    const { dataDir } = this.#node.settings.postgres
    await this.#run('keep the WAL from the fork on', script, [dataDir], `${files.join('\n')}\n`)
  }

  /** What is free on the file system of the folder; null where df does not tell. */
  async freeBytes(): Promise<number | null> {
    const line = await this.#run('look for room', 'df -Pk -- "$dir" 2>/dev/null | tail -n 1')
    const free = / +\d+ +\d+ +(-?\d+) +\S+ +\/.*$/.exec(line.trimEnd())?.[1]
    return free === undefined ? null : Number(free) * 1024
  }

  async writer(name: string): Promise<TextWriter> {
    const command = stateScript(this.#node, `write ${name}`, 'exec cat > "$state/salvage/$2.partial/$3"', [
      this.#id,
      name,
    ])
    return fileWriter(this.#node, await this.#node.start(command), name)
  }

  async write(name: string, text: string): Promise<void> {
    await this.#run(`write ${name}`, 'cat > "$dir/$3"', [name], text)
  }

  /** Runs a script with `$dir`, the folder, and `args` from `$3` on. */
  async run(title: string, script: string, args: readonly string[], stdin?: string): Promise<string> {
    return await this.#run(title, script, args, stdin)
  }

  /** Gives up what was made; a complete salvage under this name stays. */
  async drop(): Promise<void> {
    await this.#run('drop an incomplete salvage', 'rm -rf -- "$dir"')
  }

  /** Makes everything durable, and gives the folder its name. */
  async finish(): Promise<void> {
    const script = `
sync -f "$dir" 2>/dev/null || sync
done="$state/salvage/$2"
if [ -e "$done" ]; then rm -rf -- "$done.replaced"; mv -- "$done" "$done.replaced" || exit 74; fi
mv -- "$dir" "$done" && { sync "$state/salvage" 2>/dev/null || sync; } || exit 74
rm -rf -- "$done.replaced"`
    await this.#run('complete the salvage', script)
  }

  async #run(title: string, script: string, args: readonly string[] = [], stdin?: string): Promise<string> {
    const all = `umask 077; dir="$state/salvage/$2.partial"\n${script}`
    const command = stateScript(this.#node, title, all, [this.#id, ...args], stdin)
    return await this.#node.output(command, { timeoutMs: 24 * 3_600_000 })
  }
}

function fileWriter(node: Node, running: RunningCommand, name: string): TextWriter {
  let gathered: string[] = []
  let size = 0
  let complaint = ''
  running.onStderr((chunk) => {
    complaint = (complaint + chunk).slice(-2000)
  })
  running.finished.catch(() => undefined)
  const flush = async () => {
    const text = gathered.join('')
    gathered = []
    size = 0
    if (text !== '') await running.write(text)
  }
  return {
    write: async (text) => {
      gathered.push(text)
      size += text.length
      if (size >= pieceBytes) await flush()
    },
    close: async () => {
      await flush()
      running.endInput()
      const { status, signal } = await running.finished
      if (status === 0) return
      const result = { status, signal, stdout: '', stderr: complaint }
      throw commandFailed(node.name, stateScript(node, `write ${name}`, ''), result)
    },
  }
}

/** The texts of all complete salvages' salvage.json on a node, newest last. */
export async function readSalvageRecords(node: Node): Promise<readonly string[]> {
  const script = `
cd "$state/salvage" 2>/dev/null || exit 0
for one in */salvage.json; do
  case $one in '*'*|*.partial/*|*.replaced/*) continue ;; esac
  cat "$one"; printf '\\n\\036\\n'
done`
  const text = await node.output(stateScript(node, 'look for a salvage', script))
  return text.split('\n\x1e\n').filter((one) => one.trim() !== '')
}
