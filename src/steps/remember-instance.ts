import type { NodeFacts } from '../cluster/facts.ts'
import type { NodeSettings, ReplicationSettings } from '../cluster/inventory.ts'
import { ownedConfigFile } from '../cluster/node-configuration.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { stateScript } from '../node/node.ts'
import { serviceOf, startFailed } from '../node/service.ts'
import { runUnasked } from '../node/start-guard.ts'
import { quoteIdentifier, quoteLiteral } from '../postgres/sql.ts'
import { type AdoptionWish, assessAdoption } from './assess-adoption.ts'
import { reloadConfiguration } from './configuration-files.ts'
import { removeStateFile } from './ensure-mark.ts'
import { ask, awaitState, binDirectoryOf, look } from './look.ts'
import { foreignRoleRefusal } from './require-foreign-role.ts'
import { restartInstance } from './restart-instance.ts'

/** How an instance was before it was taken over; kept beside the copies of its files until that is done. */
interface Before {
  /** Null: it was stopped. */
  readonly postmasterPid: number | null
  readonly hadPassfile: boolean
  readonly hadMark: boolean
  readonly hadRecord: boolean
}

/** `$state/adopt` holds for each file `<n>.path` and, unless there was no such file, `<n>.copy`. */
const rememberScript = `
new="$state/adopt.new"
rm -rf "$new" && mkdir "$new" || exit 74
shift
n=0
for path; do
  n=$((n + 1))
  while [ -L "$path" ]; do
    link=$(readlink "$path")
    case $link in /*) path=$link ;; *) path=$(dirname "$path")/$link ;; esac
  done
  printf '%s\\n' "$path" > "$new/$n.path" || exit 74
  if [ -e "$path" ]; then cp -p -- "$path" "$new/$n.copy" || exit 74; fi
done
cat > "$new/before.json" || exit 74
sync -f "$new" 2>/dev/null || sync
mv "$new" "$state/adopt"
`

const restoreScript = `
for file in "$state"/adopt/*.path; do
  [ -f "$file" ] || continue
  IFS= read -r path < "$file"
  copy="\${file%.path}.copy"
  if [ ! -e "$copy" ]; then rm -f -- "$path" || exit 74; continue; fi
  if cmp -s -- "$copy" "$path"; then touch -r "$copy" "$path"; continue; fi
  cp -p -- "$copy" "$path.replctl-new.$$" && mv -f -- "$path.replctl-new.$$" "$path" || exit 74
done
sync
`

/**
 * Keeps a copy of each file that is about to be changed, and how the instance was, until it is taken over. Undone, it
 * puts the files back byte for byte, and has the instance run (or not) as it did, with the settings it had.
 */
export function rememberInstance({ name, postgres }: NodeSettings, wish: AdoptionWish): Step {
  return {
    title: 'keep a copy of the files that will change',
    node: name,
    check: async (ctx) => {
      const { mark } = await look(ctx)
      if (mark?.phase === 'done') return satisfied('the instance is taken over already')
      return (await readBefore(ctx)) === null ? pending('there is none') : satisfied('there is one')
    },
    apply: async (ctx) => {
      const facts = await look(ctx)
      const { configDirectory } = facts
      const { hbaFile } = await assessAdoption(ctx.node, facts, wish)
      const files = [
        ...[`${configDirectory}/postgresql.conf`, `${configDirectory}/${ownedConfigFile}`, hbaFile],
        // Where the service may be told to run the start guard.
        ...(configDirectory.startsWith('/etc/postgresql/') ? [`${configDirectory}/pg_ctl.conf`] : []),
      ]
      const before = JSON.stringify(describeInstance(facts))
      await ctx.node.output(
        stateScript(ctx.node, 'copy the configuration files', rememberScript, files, before),
      )
    },
    verify: async () => undefined,
    undo: async (ctx) => {
      const before = await readBefore(ctx)
      if (before === null) return
      await ctx.node.output(stateScript(ctx.node, 'put the configuration files back', restoreScript))
      await runAsBefore(ctx, before)
      if (!before.hadMark) await removeStateFile(ctx, name, 'node.json')
      if (!before.hadRecord) await removeStateFile(ctx, name, 'cluster.json')
      if (!before.hadPassfile) await removeStateFile(ctx, name, 'pgpass')
      await forget(ctx)
    },
  }
  async function runAsBefore(ctx: StepContext, before: Before): Promise<void> {
    const facts = await look(ctx)
    if (before.postmasterPid === null) return
    if (facts.instance === null) {
      const service = serviceOf(ctx.node, facts, binDirectoryOf(facts))
      const result = await runUnasked(ctx.node, facts, service.start, { timeoutMs: ctx.timeoutMs })
      if (result.status !== 0) throw startFailed(name, service, result.stderr || result.stdout)
      await awaitState(ctx, `PostgreSQL on ${name} answers on port ${postgres.port}`, async () => {
        return (await look(ctx)).instance ?? undefined
      })
      return
    }
    await reloadConfiguration(ctx, name)
    // The same postmaster still has the settings it was started with; another one has ours.
    if (facts.postmaster?.pid !== before.postmasterPid) await restartInstance(ctx, await look(ctx))
  }
}

/** What it was kept for is done: the copies go, and nothing can be taken back without them. */
export function forgetInstance({ name }: NodeSettings): Step {
  return {
    title: 'remove the copies of the files that were changed',
    node: name,
    pointOfNoReturn: true,
    check: async (ctx) =>
      (await readBefore(ctx)) === null ? satisfied('there are none') : pending('they are there'),
    apply: forget,
  }
}

/** A role that is made for an instance goes again when the instance is given back; one that it had stays. */
export function takesBackRole(step: Step, replication: ReplicationSettings): Step {
  const { user } = replication
  return {
    ...step,
    apply: async (ctx) => {
      const foreign = await foreignRoleRefusal(ctx, replication)
      if (foreign !== null) throw foreign
      const { sql } = await ask(ctx)
      const roles = await sql.value(
        `SELECT count(*)::text FROM pg_roles WHERE rolname = ${quoteLiteral(user)}`,
      )
      const script = 'if [ -d "$state/adopt" ]; then : > "$state/adopt/made-role"; fi'
      if (roles === '0') await ctx.node.output(stateScript(ctx.node, 'note that a role is made', script))
      await step.apply?.(ctx)
    },
    undo: async (ctx) => {
      const script = 'if [ -f "$state/adopt/made-role" ]; then echo made; fi'
      const noted = await ctx.node.output(
        stateScript(ctx.node, 'look whether a role was made', script, [], undefined, { onlyLooks: true }),
      )
      if (noted.trim() === '' || (await look(ctx)).instance === null) return
      const { sql } = await ask(ctx)
      await sql.execute(`DROP ROLE IF EXISTS ${quoteIdentifier(user)}`)
    },
  }
}

function describeInstance(facts: NodeFacts): Before {
  return {
    postmasterPid: facts.instance === null ? null : (facts.postmaster?.pid ?? null),
    hadPassfile: facts.hasPassfile,
    hadMark: facts.mark !== null,
    hadRecord: facts.record !== null,
  }
}

async function readBefore(ctx: StepContext): Promise<Before | null> {
  const script = 'if [ -f "$state/adopt/before.json" ]; then cat "$state/adopt/before.json"; fi'
  const text = await ctx.node.output(
    stateScript(ctx.node, 'look for copies of files', script, [], undefined, { onlyLooks: true }),
  )
  return text === '' ? null : (JSON.parse(text) as Before)
}

async function forget(ctx: StepContext): Promise<void> {
  await ctx.node.output(
    stateScript(ctx.node, 'remove the copies of files', 'rm -rf "$state/adopt" "$state/adopt.new"'),
  )
}
