import type { Inventory, NodeSettings } from '../cluster/inventory.ts'
import { archiveHost, type NodeName } from '../cluster/names.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { shellScript } from '../command.ts'
import { pending, type Step, type StepContext, satisfied } from '../engine/step.ts'
import { asReplctlError } from '../errors.ts'
import { readTextFile, writeTextFile } from '../node/files.ts'
import { stateScript } from '../node/node.ts'
import { archiveFiles } from '../postgres/archive.ts'
import { buildConninfo } from '../postgres/conninfo.ts'

/**
 * With `mode: stream`, tells the archive host on which nodes it may look for the primary: members of the cluster, and no
 * others. A node that was removed and promoted by itself is a copy with a history of its own, which must not enter the archive.
 * An archive host that is away hinders nothing.
 */
export function tellArchiveMembers(
  { archive, nodes }: Inventory,
  primary: NodeName,
  members: readonly NodeName[],
): readonly Step[] {
  if (archive?.mode !== 'stream') return []
  const text = nodes
    .filter(({ name }) => members.includes(name))
    .map((node) => `${archiveNodeLine(node)}\n`)
    .join('')
  const pathOn = async (ctx: StepContext) => {
    const host = ctx.on(archiveHost)
    const home = (await host.output(shellScript('find the home', 'printf %s "$HOME"'))).trim()
    return `${stateDirectoryOf(home, host.settings)}/${archiveFiles.streamNodes}`
  }
  return [
    {
      title: `tell the archive host ${archive.host} which nodes belong to the cluster`,
      node: primary,
      check: async (ctx) => {
        try {
          const known = await readTextFile(ctx.on(archiveHost), await pathOn(ctx))
          return known === text ? satisfied('it knows them') : pending('it knows others')
        } catch (thrown) {
          ctx.warn(
            asReplctlError(thrown).with({
              node: archiveHost,
              hint: `When it is back, run "replctl init primary ${primary}": it tells the archive which nodes there are.`,
            }),
          )
          return satisfied('the archive host cannot be reached')
        }
      },
      apply: async (ctx) => {
        const host = ctx.on(archiveHost)
        await host.output(stateScript(host, 'make the state directory', ':'))
        await writeTextFile(host, await pathOn(ctx), text, { mode: '0600' })
      },
    },
  ]
}

/** Where a node is, as the archive host reaches it. */
export function archiveNodeLine({ address, postgres }: NodeSettings): string {
  return buildConninfo({ host: address, port: String(postgres.port) })
}
