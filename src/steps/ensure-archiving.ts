import type { NodeFacts } from '../cluster/facts.ts'
import type { ArchiveSettings, NodeSettings } from '../cluster/inventory.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { hasMadeNote } from '../node/archive-note.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import { commandFailed, stateScript, stateVariableScript } from '../node/node.ts'
import {
  archiveFiles,
  archiveKnownHosts,
  authorizedKeysLine,
  ensureAuthorizedKeysLine,
  hostKeysIn,
  renderArchiveFetch,
  renderArchivePush,
  renderArchiveReceive,
} from '../postgres/archive.ts'
import { countKeysScript, forgetKeyScript, prepareArchiveScript } from './archive-key-scripts.ts'
import { archiveGone, identifierOf, readPublicKey, whereArchiveAnswers } from './archive-presence.ts'
import type { ClusterInput } from './cluster-input.ts'
import { look } from './look.ts'

interface KnownCluster {
  readonly systemIdentifier?: string
  /** A node of the same cluster, where that is known only once the node has data. */
  readonly memberWith?: NodeName
}

/**
 * What a node needs to archive WAL over SSH and to fetch it back: a key of its own, let in on the archive host for
 * exactly that, and the two scripts. Every node gets them, for every node may become primary. Nothing where the
 * inventory has no archive block. `known`: of which cluster the node is, where it has no data yet.
 */
export function ensureArchiving(
  input: ClusterInput,
  node: NodeSettings,
  known?: KnownCluster,
): readonly Step[] {
  const { archive } = input.inventory
  if (archive === undefined) return []
  return [
    ensureArchiveKey(node),
    whereArchiveAnswers(input, node, ensureKeyIsLetIn(input, node, archive, known)),
    whereArchiveAnswers(input, node, ensureArchiveScripts(input, node, archive, known)),
  ]
}

async function identifierFor(
  ctx: StepContext,
  facts: NodeFacts,
  known: KnownCluster | undefined,
): Promise<string | null> {
  if (known?.systemIdentifier !== undefined) return known.systemIdentifier
  const own = identifierOf(facts)
  return own === null && known?.memberWith !== undefined
    ? identifierOf(await look(ctx, known.memberWith))
    : own
}

function ensureArchiveKey(node: NodeSettings): Step {
  return {
    title: 'have an SSH key for the archive host',
    node: node.name,
    check: async (ctx) =>
      (await readPublicKey(ctx, node, await look(ctx))) === null
        ? pending('there is none')
        : satisfied('it is there'),
    apply: async (ctx) => {
      const script = `
command -v ssh >/dev/null 2>&1 && command -v ssh-keygen >/dev/null 2>&1 || { echo 'there is no ssh or ssh-keygen' >&2; exit 69; }
rm -f "$state/new_key" "$state/new_key.pub"
ssh-keygen -q -t ed25519 -N '' -C "$2" -f "$state/new_key" </dev/null || exit 70
mv -f "$state/new_key" "$state/${archiveFiles.key}" && mv -f "$state/new_key.pub" "$state/${archiveFiles.key}.pub"
`
      const command = stateScript(ctx.node, 'make an SSH key', script, [
        `replctl:${ctx.node.cluster}:${node.name}`,
      ])
      const made = await ctx.node.run(command)
      if (made.status !== 0) {
        throw new ReplctlError('binaries-missing', `could not make an SSH key on ${node.name}`, {
          detail: made.stderr.trim(),
          hint: 'Archiving over SSH needs the OpenSSH client there: apt-get install openssh-client',
          node: node.name,
        })
      }
    },
  }
}

/** The archive host takes the node's key for this cluster's archive and nothing else. */
function ensureKeyIsLetIn(
  input: ClusterInput,
  node: NodeSettings,
  archive: ArchiveSettings,
  known?: KnownCluster,
): Step {
  const { cluster } = input.inventory
  const wanted = async (ctx: StepContext) => {
    const facts = await look(ctx)
    const publicKey = await readPublicKey(ctx, node, facts)
    const systemIdentifier = await identifierFor(ctx, facts, known)
    if (publicKey === null || systemIdentifier === null) return null
    const home = (await ctx.on(archiveHost).output(shellScript('find the home', 'printf %s "$HOME"'))).trim()
    const receiverPath = `${stateDirectoryOf(home, ctx.on(archiveHost).settings)}/${archiveFiles.receive}`
    const line = authorizedKeysLine({
      ...{ cluster, node: node.name, systemIdentifier, dir: archive.dir },
      ...{ receiverPath, publicKey },
    })
    return { line, receiverPath, systemIdentifier, keysPath: `${home}/.ssh/authorized_keys` }
  }
  const receiver = renderArchiveReceive(input.templates.archiveReceive, { cluster })
  return {
    title: `let its key in on the archive host ${archive.host}, for this archive only`,
    node: node.name,
    check: async (ctx) => {
      const wish = await wanted(ctx)
      if (wish === null) return unknownUntil('the key is made')
      const on = ctx.on(archiveHost)
      const [keys, script] = await Promise.all([
        readTextFile(on, wish.keysPath),
        readTextFile(on, wish.receiverPath),
      ])
      if (script !== receiver) return pending('the receiving script is missing or older')
      const isIn = ensureAuthorizedKeysLine(keys ?? '', wish.line) === keys
      const look = `${stateVariableScript}[ -d "$2/$3/wal" ] && [ -w "$2/$3/wal" ] && ${hasMadeNote}`
      const hasDirectory = await on.run(
        shellScript('look for the archive', look, [
          ...[on.settings.stateDir, archive.dir, wish.systemIdentifier],
        ]),
      )
      return isIn && hasDirectory.status === 0 ? satisfied('it is in') : pending('it is not in yet')
    },
    apply: async (ctx) => {
      const wish = await wanted(ctx)
      if (wish === null) throw new RangeError('the key of the step before is gone')
      const on = ctx.on(archiveHost)
      const command = stateScript(on, 'prepare the archive', prepareArchiveScript, [
        ...[archive.dir, wish.line, `replctl:${cluster}:${node.name}`, wish.systemIdentifier],
      ])
      const prepared = await on.run(command)
      if (prepared.status === 66) throw archiveGone(archive, wish.systemIdentifier)
      if (prepared.status === 73) throw noArchiveDirectory(archive, prepared.stderr)
      if (prepared.status !== 0) throw commandFailed(archive.host, command, prepared)
      await writeTextFile(on, wish.receiverPath, receiver, { mode: '0700' })
    },
  }
}

/**
 * Takes a removed node's key out of authorized_keys on the archive host: only the line with its own mark. An archive host
 * that cannot be reached is no reason to keep a node in the cluster: it is said.
 */
export function forgetArchiveKey(input: ClusterInput, removed: NodeName, primary: NodeName): readonly Step[] {
  const { archive, cluster } = input.inventory
  if (archive === undefined) return []
  const mark = `replctl:${cluster}:${removed}`
  return [
    {
      title: `take the key of ${removed} out of authorized_keys on the archive host`,
      node: primary,
      check: async (ctx) => {
        const words = [mark, identifierOf(await look(ctx)) ?? '']
        try {
          const count = await ctx
            .on(archiveHost)
            .output(shellScript('look for its key', countKeysScript, words))
          return Number(count) > 0 ? pending('it is in') : satisfied('it is not in')
        } catch (thrown) {
          const why = asReplctlError(thrown)
          const hint = `Remove the line that ends with "${mark}" from ~${archive.user}/.ssh/authorized_keys there.`
          ctx.warn(why.with({ node: archiveHost, hint }))
          return satisfied('the archive host cannot be reached')
        }
      },
      apply: async (ctx) => {
        const words = [mark, identifierOf(await look(ctx)) ?? '']
        const command = shellScript('take its key out', forgetKeyScript, words)
        await ctx.on(archiveHost).output(command)
      },
    },
  ]
}

/** The scripts that send WAL to the archive host and fetch it back; proved by asking the archive host for real. */
function ensureArchiveScripts(
  input: ClusterInput,
  node: NodeSettings,
  archive: ArchiveSettings,
  known?: KnownCluster,
): Step {
  const files = async (ctx: StepContext) => {
    const facts = await look(ctx)
    const systemIdentifier = await identifierFor(ctx, facts, known)
    if (systemIdentifier === null) return null
    const stateDirectory = stateDirectoryOf(facts.home, node)
    const values = {
      ...{ cluster: input.inventory.cluster, stateDirectory, systemIdentifier },
      ...{ host: archive.address, port: archive.port, user: archive.user, dir: archive.dir },
      connectTimeoutMs: archive.ssh.connectTimeoutMs,
    }
    const printed = await ctx.on(archiveHost).output(shellScript('read the host keys', hostKeysScript))
    const keys = hostKeysIn(printed)
    if (keys.length === 0) throw noHostKeys(archive)
    const { push, fetch, knownHosts } = archiveFiles
    const compression = archive.compression
    return [
      {
        path: `${stateDirectory}/${push}`,
        mode: '0700',
        text: renderArchivePush(input.templates.archivePush, { ...values, compression }),
      },
      {
        path: `${stateDirectory}/${fetch}`,
        mode: '0700',
        text: renderArchiveFetch(input.templates.archiveFetch, values),
      },
      {
        path: `${stateDirectory}/${knownHosts}`,
        mode: '0600',
        text: archiveKnownHosts({ host: archive.address, port: archive.port }, keys),
      },
    ]
  }
  return {
    title: `have the scripts that push WAL to ${archive.host} and fetch it`,
    node: node.name,
    check: async (ctx) => {
      const wanted = await files(ctx)
      if (wanted === null) return unknownUntil('the data directory is made')
      const live = await Promise.all(wanted.map((file) => readTextFile(ctx.node, file.path)))
      return wanted.every((file, index) => live[index] === file.text)
        ? satisfied('they are as rendered')
        : pending('they are missing or older')
    },
    apply: async (ctx) => {
      for (const file of (await files(ctx)) ?? []) {
        await writeTextFile(ctx.node, file.path, file.text, { mode: file.mode })
      }
    },
    verify: async (ctx) => {
      const command = stateScript(ctx.node, 'ask the archive host', `"$state/${archiveFiles.push}" --check`)
      const answer = await ctx.node.run(command, { timeoutMs: ctx.timeoutMs })
      if (answer.status === 0) return
      throw new ReplctlError('archive-failing', `${node.name} cannot reach the archive on ${archive.host}`, {
        detail: answer.stderr.trim(),
        hint: `Check the route and sshd: ${archive.user}@${archive.address}, port ${archive.port}; if nodes reach it by another address, set archive.address.`,
        node: node.name,
      })
    },
  }
}

/** The keys of its sshd: those that its configuration names, as far as that may be read, and those that lie where they do by default. */
const hostKeysScript = `
{ for file in /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf; do
    if [ -r "$file" ]; then awk 'tolower($1) == "hostkey" { print $2 ".pub" }' "$file"; fi
  done
  printf '%s\\n' /etc/ssh/ssh_host_*_key.pub; } | while IFS= read -r file; do
  if [ -r "$file" ]; then cat "$file"; echo; fi
done
:
`

function noHostKeys({ host }: ArchiveSettings): ReplctlError {
  return new ReplctlError('archive-failing', `cannot read the host keys of ${host}`, {
    detail:
      'There is no public key in /etc/ssh/ssh_host_*_key.pub there, nor beside a HostKey of its sshd_config: no node could tell whom it speaks to.',
    hint: 'Have them there, readable for everybody, as ssh-keygen made them: ssh-keygen -y -f HOSTKEY > HOSTKEY.pub',
    node: archiveHost,
  })
}

function noArchiveDirectory(archive: ArchiveSettings, said: string): ReplctlError {
  return new ReplctlError('archive-failing', `could not make ${archive.dir} on ${archive.host}`, {
    detail: said.trim(),
    hint: `Make it there, as root: install -d -m 0700 -o ${archive.user} ${archive.dir}`,
  })
}
