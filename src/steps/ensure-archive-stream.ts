import type { NodeFacts } from '../cluster/facts.ts'
import type { ArchiveSettings, Inventory, NodeSettings } from '../cluster/inventory.ts'
import { archiveConnection } from '../cluster/judge-archiving.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { archiveStreamNames } from '../cluster/replication-names.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { Secret, shellScript } from '../command.ts'
import { pending, refused, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import { stateScript } from '../node/node.ts'
import { archiveFiles, renderArchiveStream } from '../postgres/archive.ts'
import { buildConninfo } from '../postgres/conninfo.ts'
import { passfileLine } from '../postgres/passfile.ts'
import { identifierOf, whereArchiveAnswers } from './archive-presence.ts'
import type { ClusterInput } from './cluster-input.ts'
import { readPassword } from './ensure-replication-role.ts'
import { ask, awaitState, look } from './look.ts'
import { tellArchiveMembers } from './tell-archive-members.ts'

/**
 * With `mode: stream`, has pg_receivewal run on the archive host: a supervisor in plain sh keeps it connected to whichever
 * node accepts writes, through promotions and restarts. Nothing where WAL is pushed.
 */
export function ensureArchiveStream(
  input: ClusterInput,
  primary: NodeSettings,
  members: readonly NodeName[],
): readonly Step[] {
  const { archive } = input.inventory
  if (archive?.mode !== 'stream') return []
  return [
    ...tellArchiveMembers(input.inventory, primary.name, members),
    receiveOnArchiveHost(input, archive, primary.name),
  ].map((step) => whereArchiveAnswers(input, primary, step))
}

/** That the archive host has pg_receivewal is looked at before anything is changed. One that is away stops only who was never equipped. */
export function requireArchiveStream(input: ClusterInput, node: NodeSettings): readonly Step[] {
  const { archive } = input.inventory
  if (archive?.mode !== 'stream') return []
  return [
    whereArchiveAnswers(input, node, {
      title: `require pg_receivewal and flock on the archive host ${archive.host}`,
      node: node.name,
      check: async (ctx) => {
        const host = ctx.on(archiveHost)
        const found = await host.output(
          stateScript(host, 'look whose WAL it receives', ownerScript, [], undefined, { onlyLooks: true }),
        )
        const owner = found.trim()
        if (owner !== '' && owner !== identifierOf(await look(ctx))) {
          return refused(receivesForAnother(input.inventory.cluster, archive, owner))
        }
        const result = await host.run(shellScript('look for pg_receivewal', findScript))
        return result.status === 0
          ? satisfied(result.stdout.trim())
          : refused(
              new ReplctlError('binaries-missing', `${archive.host} lacks what it takes to receive WAL`, {
                detail: result.stderr.trim(),
                hint: "Install the PostgreSQL client programs of the nodes' major version there, e.g. apt-get install postgresql-client-15",
                node: archiveHost,
              }),
            )
      },
    }),
  ]
}

function receiveOnArchiveHost(input: ClusterInput, archive: ArchiveSettings, primary: NodeName): Step {
  const { cluster, replication } = input.inventory
  const names = archiveStreamNames(cluster)
  const wish = async (ctx: StepContext, facts: NodeFacts) => {
    const host = ctx.on(archiveHost)
    const home = (await host.output(shellScript('find the home', 'printf %s "$HOME"'))).trim()
    const state = stateDirectoryOf(home, host.settings)
    const password = replication.password ?? (await readPassword(ctx, primary, facts, replication))
    const systemIdentifier = facts.instance?.systemIdentifier
    if (password === null || systemIdentifier === undefined) return null
    const common = {
      user: replication.user,
      passfile: `${state}/${archiveFiles.streamPassfile}`,
      application_name: names.application,
      connect_timeout: '3',
      ...{ keepalives_idle: '5', keepalives_interval: '3', keepalives_count: '3' },
    }
    const script = renderArchiveStream(input.templates.archiveStream, {
      ...{ cluster, slot: names.slot, systemIdentifier, conninfo: buildConninfo(common) },
      walDirectory: `${archive.dir}/${systemIdentifier}/wal`,
    })
    const line = passfileLine({
      ...{ host: '*', port: '*', database: '*', user: replication.user },
      password: password.reveal(),
    })
    return {
      script,
      scriptPath: `${state}/${archiveFiles.stream}`,
      passfile: common.passfile,
      text: `${line}\n`,
    }
  }
  const isReceiving = (facts: NodeFacts) => archiveConnection(cluster, facts)?.state === 'streaming'
  return {
    title: `receive WAL on the archive host ${archive.host} as it is written`,
    node: primary,
    check: async (ctx) => {
      const facts = await look(ctx)
      if (facts.instance === null || facts.instance.isInRecovery) return unknownUntil('it leads')
      const wanted = await wish(ctx, facts)
      if (wanted === null) return unknownUntil('the replication password is there')
      const host = ctx.on(archiveHost)
      const [script, passfile, running] = await Promise.all([
        readTextFile(host, wanted.scriptPath),
        readTextFile(host, wanted.passfile),
        host.output(stateScript(host, 'look at the archive stream', lookScript)),
      ])
      if (script !== wanted.script || passfile !== wanted.text)
        return pending('its files are missing or older')
      if (running.includes('gap')) return pending('WAL that it needs is gone from the primary')
      if (!running.includes('running')) return pending('it does not run')
      return isReceiving(facts) && running.includes('receiving')
        ? satisfied('it streams')
        : pending('it runs and does not stream')
    },
    apply: async (ctx) => {
      const wanted = await wish(ctx, await look(ctx))
      if (wanted === null) throw new RangeError('the replication password is gone')
      const host = ctx.on(archiveHost)
      const before = await host.output(stateScript(host, 'look at the archive stream', lookScript))
      await host.output(stateScript(host, 'stop the archive stream', stopScript))
      await endOtherReceiver(ctx, input.inventory, before.includes('receiving'))
      await writeTextFile(host, wanted.passfile, new Secret(wanted.text), { mode: '0600' })
      await writeTextFile(host, wanted.scriptPath, wanted.script, { mode: '0700' })
      const mark = `replctl:${cluster}:archive-stream`
      const seen = await host.output(stateScript(host, 'look at the archive stream', lookScript))
      const hasGap = seen.includes('gap')
      if (hasGap) ctx.warn(walIsMissing(archive, seen))
      const begun = await host.output(
        stateScript(host, 'start the archive stream', startScript, [mark, hasGap ? '--leap' : '']),
      )
      if (!begun.includes('at boot')) ctx.warn(startsNotAtBoot(archive, primary))
    },
    verify: async (ctx) => {
      const host = ctx.on(archiveHost)
      const log = async () =>
        await host.output(
          stateScript(
            host,
            'read its log',
            'tail -n 3 "$state/stream.log" "$state/stream.said" "$state/stream.err" 2>/dev/null; :',
          ),
        )
      let said = ''
      let other: string | null = null
      await awaitState(
        ctx,
        'the archive host receives WAL',
        async () => {
          const running = await host.output(stateScript(host, 'look at the archive stream', lookScript))
          const connection = archiveConnection(cluster, await look(ctx))
          if (connection?.state === 'streaming' && running.includes('receiving')) return true
          said = await log()
          other = connection === undefined ? null : (connection.clientAddress ?? 'a local socket')
          return undefined
        },
        { everyMs: 200, last: () => said },
      ).catch((thrown: unknown) => {
        throw other !== null && asReplctlError(thrown).code === 'timeout'
          ? heldByAnother(archive, primary, other, said)
          : thrown
      })
    },
    undo: async (ctx) => {
      const host = ctx.on(archiveHost)
      await host.output(stateScript(host, 'stop the archive stream', stopScript))
    },
  }
}

/**
 * Ends what receives in the archive's name although the archive host's own supervisor is stopped: that of the host which was the
 * archive before, and a connection whose other end is gone. The former cannot come back unless pg_hba.conf lets it.
 */
async function endOtherReceiver(ctx: StepContext, inventory: Inventory, wasOurs: boolean): Promise<void> {
  const { facts, sql } = await ask(ctx)
  const { slot } = archiveStreamNames(inventory.cluster)
  if (!facts.instance?.slots.some((one) => one.name === slot && one.isActive)) return
  const from = archiveConnection(inventory.cluster, facts)?.clientAddress ?? null
  await sql.execute(
    `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${slot}' AND active`,
  )
  if (wasOurs || from === null || from === inventory.archive?.address) return
  ctx.warn(
    new ReplctlError('archive-unattended', `${from} received the WAL in the name of the archive`, {
      detail: 'As the archive host does before archive.host is changed. Its connection was ended.',
      hint: `Stop archive-stream there, too: kill the process that ~/.replctl/${inventory.cluster}/stream.pid names, and remove its line from crontab.`,
      node: ctx.node.name,
    }),
  )
}

function heldByAnother(
  archive: ArchiveSettings,
  primary: NodeName,
  other: string,
  said: string,
): ReplctlError {
  return new ReplctlError(
    'archive-failing',
    `${other} receives the WAL of ${primary} in the archive's name`,
    {
      detail: `${archive.host} cannot, as long as that connection holds the slot. Its log: ${said.trim()}`,
      hint: 'Stop archive-stream on that host (its process is named in stream.pid of the state directory there), then run the command again.',
      node: primary,
    },
  )
}

function startsNotAtBoot(archive: ArchiveSettings, primary: NodeName): ReplctlError {
  return new ReplctlError(
    'archive-unattended',
    `nothing starts the archive stream when ${archive.host} boots`,
    {
      detail: 'There is no cron that runs there for its user.',
      hint: `Have ~/.replctl/CLUSTER/archive-stream started at boot there, or run "replctl init primary ${primary}" after it: until then the slot keeps WAL.`,
      node: archiveHost,
    },
  )
}

/** The slot could keep no more than max_slot_wal_keep_size while the archive was away. */
function walIsMissing(archive: ArchiveSettings, seen: string): ReplctlError {
  return new ReplctlError('archive-gap', `WAL is missing for ever in the archive on ${archive.host}`, {
    detail: `The primary removed it before the archive had it. It goes on behind the gap. ${seen.replace(/^(gap|running|receiving)$/gm, '').trim()}`,
    hint: 'Take a new base backup now: no recovery gets across the gap. replctl backup',
    node: archiveHost,
  })
}

/** Its scripts and its crontab line stand where ours would, for both clusters have the same name. */
function receivesForAnother(cluster: string, { host, user }: ArchiveSettings, owner: string): ReplctlError {
  return new ReplctlError('foreign-cluster', `${host} receives the WAL of another cluster ${cluster}`, {
    detail: `archive-stream runs there for the one with system identifier ${owner}, and receives from it now.`,
    hint: `Give this cluster another name, or another user on that host (it is ${user}). If that cluster is given up: stop its PostgreSQL, or archive-stream there (stream.pid names it).`,
    node: archiveHost,
  })
}

const findScript = `
command -v flock >/dev/null 2>&1 || { echo 'there is no flock' >&2; exit 69; }
for directory in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/pgsql/bin $(printf %s "$PATH" | tr : ' '); do
  if [ -x "$directory/pg_receivewal" ] && [ -x "$directory/psql" ]; then echo "$directory/pg_receivewal"; exit 0; fi
done
echo 'there is no pg_receivewal with a psql beside it' >&2
exit 69
`

/** One that cannot get the slot runs pg_receivewal for a moment, again and again: only the same process, seen twice, receives. */
const lookScript = `
if [ -f "$state/stream.lock" ] && ! flock -n "$state/stream.lock" true; then
  echo running
  if read -r child kind < "$state/stream.child" && [ "$kind" = receiving ] && kill -0 "$child"; then
    sleep 0.3 2>/dev/null || sleep 1
    read -r again kind < "$state/stream.child" && [ "$again $kind" = "$child receiving" ] && kill -0 "$child" && echo receiving
  fi 2>/dev/null
fi
if [ -f "$state/stream.gap" ]; then echo gap; cat "$state/stream.gap"; fi
:
`

/** The cluster that is received from now, by its system identifier; nothing where nobody is. */
const ownerScript = `
[ -f "$state/stream.lock" ] || exit 0
case $(
${lookScript}) in
  running*receiving*) sed -n "s/^system_identifier='*\\([0-9]*\\).*/\\1/p" "$state/archive-stream" | head -n 1 ;;
esac
`

const stopScript = `
n=0
while [ -f "$state/stream.lock" ] && ! flock -n "$state/stream.lock" true; do
  signal=TERM
  [ $n -lt 100 ] || signal=KILL
  pid=$(cat "$state/stream.pid" 2>/dev/null)
  [ -z "$pid" ] || kill -s $signal "$pid" 2>/dev/null
  n=$((n + 1))
  [ $n -lt 200 ] || exit 75
  sleep 0.05 2>/dev/null || sleep 1
done
if command -v crontab >/dev/null 2>&1 && crontab -l 2>/dev/null | grep -q '# replctl:.*:archive-stream$'; then
  crontab -l | grep -v "'$state/archive-stream' # replctl:" | crontab -
fi
`

const startScript = `
launch=
command -v setsid >/dev/null 2>&1 && launch=setsid
$launch "$state/archive-stream" \${3:+"$3"} </dev/null >/dev/null 2>"$state/stream.err" &
n=0
while [ ! -f "$state/stream.lock" ] || flock -n "$state/stream.lock" true; do
  n=$((n + 1))
  [ $n -lt 100 ] || { cat "$state/stream.err" >&2; exit 70; }
  sleep 0.05 2>/dev/null || sleep 1
done
if command -v crontab >/dev/null 2>&1 && ps -e -o comm= | grep -Eq '^(cron|crond|fcron|busybox)$'; then
  { crontab -l 2>/dev/null; echo "@reboot '$state/archive-stream' # $2"; } | crontab - 2>/dev/null && echo 'at boot'
fi
:
`
