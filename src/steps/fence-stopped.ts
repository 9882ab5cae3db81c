import type { FenceMark } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { StepContext } from '../engine/step.ts'
import { ReplctlError } from '../errors.ts'
import { identifierScript } from '../node/find-serving.ts'
import { stateScript } from '../node/node.ts'

/** What a fenced former primary shall hold, each as a path and its text. */
export interface FenceFiles {
  readonly mark: FenceMark
  /** standby.signal; undefined before 12, where the configuration is the signal. */
  readonly signalPath: string | undefined
  /** Recovery settings, or recovery.conf. */
  readonly configPath: string
  readonly configText: string
  /** What would promote it as soon as it starts: left behind by an interrupted promotion. */
  readonly triggerPath: string
}

/**
 * Fences an instance of which no process is left, in one round trip: mark, signal and settings are written and made
 * durable, and before as well as after it is looked for a process that works in the data directory. A session that
 * outlived its postmaster counts: it can still confirm a commit. 69: something runs (or nobody can tell): nothing is proved.
 * 68: a postmaster serves the instance's port with the same system identifier from another directory: this one is a copy.
 * Where the disk is full the signal alone does: an empty file needs no room, and keeps the server from writing.
 */
const fenceScript = `
mark=$2 data=$3 signal=$4 config=$5 port=$7
rm -f -- "$6"
${identifierScript}
real=$(cd -P -- "$data" && pwd -P) || exit 69
runs() {
  for entry in /proc/[0-9]*; do
    { read -r name < "$entry/comm"; } 2>/dev/null || continue
    case $name in postgres*|postmaster*) ;; *) continue ;; esac
    [ "$(readlink "$entry/cwd" 2>/dev/null)" = "$real" ] && return 0
    { read -r first; read -r _; read -r _; read -r its_port; } 2>/dev/null < "$entry/cwd/postmaster.pid" || continue
    [ "$first $its_port" = "\${entry#/proc/} $port" ] || continue
    own=$(identifier_in "$data")
    [ -n "$own" ] && [ "$own" = "$(identifier_in "$entry/cwd")" ] || continue
    printf 'process %s serves port %s from %s' "$first" "$port" "$(readlink "$entry/cwd")"
    exit 68
  done
  return 1
}
[ -r "/proc/$$/comm" ] || exit 69
runs && exit 69
# What sends WAL ahead to the archive outlives the server, and what is not the cluster's history any more must not get there.
if { read -r ahead < "$state/ahead.pid" && read -r comm < "/proc/$ahead/comm"; } 2>/dev/null; then
  [ "$comm" != archive-push ] || kill "$ahead" 2>/dev/null
fi
umask 077 full=
if ! printf '%s\\n' "$mark" 2>/dev/null > "$state/fenced.json.new"; then rm -f "$state/fenced.json.new"; full=yes; fi
if ! cat 2>/dev/null > "$config.replctl-new"; then rm -f "$config.replctl-new"; full=yes; fi
set -- "$state/fenced.json.new" "$config.replctl-new"
[ -n "$full" ] || sync "$@" 2>/dev/null || sync
[ ! -f "$state/fenced.json.new" ] || mv -f "$state/fenced.json.new" "$state/fenced.json"
if [ -n "$signal" ]; then true > "$signal" || exit 74; fi
[ ! -f "$config.replctl-new" ] || mv -f "$config.replctl-new" "$config" || exit 74
[ -n "$signal" ] || [ -z "$full" ] || exit 74
sync "$state" "$data" "\${config%/*}" 2>/dev/null || sync
runs && exit 69
echo "fenced $full"
`

/** Gives false where a process of the instance is left, or nobody can tell: then it has to be stopped first. */
export async function fenceStopped(ctx: StepContext, files: FenceFiles): Promise<boolean> {
  const { dataDir, port } = ctx.node.settings.postgres
  const result = await ctx.node.run(
    stateScript(
      ctx.node,
      'fence the stopped instance',
      fenceScript,
      [
        ...[JSON.stringify(files.mark), dataDir, files.signalPath ?? '', files.configPath, files.triggerPath],
        String(port),
      ],
      files.configText,
    ),
  )
  if (result.status === 68) throw servesElsewhere(ctx.node.settings, result.stdout)
  if (result.status !== 0 || !result.stdout.startsWith('fenced ')) return false
  if (result.stdout.trim() === 'fenced yes') ctx.warn(markMissing(ctx.node.name))
  return true
}

/** A primary of the cluster that does not run where the inventory says. */
export function servesElsewhere({ name, postgres }: NodeSettings, sign: string): ReplctlError {
  return new ReplctlError('primary-alive', `the old primary ${name} is alive: ${sign}`, {
    detail: `It does not run in ${postgres.dataDir}: that was moved, or data_dir in the inventory is wrong. So replctl cannot stop it, and another primary beside it would make two writers.`,
    hint: `Set data_dir of ${name} to where it runs, or stop it yourself.`,
    node: name,
  })
}

function markMissing(node: string): ReplctlError {
  return new ReplctlError(
    'disk-full',
    `the disk of ${node} is full: it is fenced by its standby signal alone`,
    {
      detail:
        'What else is left on a fenced node, its mark and the settings of a standby, could not be written.',
      hint: `Free some space there before ${node} is brought back.`,
      node,
    },
  )
}
