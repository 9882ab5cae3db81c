import { resolve } from 'node:path'
import { quoteForDisplay } from '../../command.ts'
import { findInventoryPath } from '../../config/find-inventory.ts'
import { newInventoryText, refuseToOverwrite, writeNewInventory } from '../../config/new-inventory.ts'
import { exitCodes, ReplctlError } from '../../errors.ts'
import { supportedMajorVersions } from '../../postgres/versions.ts'
import type { Answer, Call } from '../command-spec.ts'

/** `replctl new CLUSTER --hosts a,b,c`. */
export async function run(call: Call): Promise<Answer> {
  const cluster = String(call.args[0])
  const hosts = String(call.options.hosts ?? '')
    .split(',')
    .map((host) => host.trim())
    .filter((host) => host !== '')
  if (hosts.length === 0) {
    throw new ReplctlError('usage', 'no hosts given', { hint: 'Name them: --hosts 10.0.0.11,10.0.0.12' })
  }
  const version = readVersion(call.options.postgresVersion as string | undefined)
  const path = resolve(call.io.cwd, call.flags.config ?? 'replctl.yaml')
  const text = newInventoryText({ cluster, hosts, ...(version === undefined ? {} : { version }) })
  if (call.flags.isDryRun) await refuseToOverwrite(path)
  else await writeNewInventory(path, text)
  return {
    exitCode: exitCodes.ok,
    changed: !call.flags.isDryRun,
    cluster,
    result: {
      path,
      steps: [
        {
          ...{ n: 1, node: call.io.hostName, title: `write ${path}`, ms: 0 },
          state: call.flags.isDryRun ? 'planned' : 'applied',
        },
      ],
    },
    problems: [],
    text: call.flags.isDryRun
      ? text
      : `wrote ${path}\nNext: look it through, then replctl${whereToFind(call, path)} doctor\n`,
  }
}

/** The option without which the next command would read another file; empty where it finds this one. */
function whereToFind(call: Call, path: string): string {
  const { env, cwd, home } = call.io
  const name = call.flags.config ?? 'replctl.yaml'
  try {
    if (findInventoryPath({ env, cwd, home }) === path) return ''
  } catch {
    // None at all.
  }
  return ` -c ${quoteForDisplay(name)}`
}

/** What an inventory takes as postgres.version, too. */
function readVersion(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^[1-9]\d?$/.test(text)) {
    throw new ReplctlError('usage', `--postgres-version: "${text}" is not a major version of PostgreSQL`, {
      hint: 'For example: --postgres-version 15',
    })
  }
  const [oldest] = supportedMajorVersions
  if (Number(text) >= oldest) return Number(text)
  throw new ReplctlError('usage', `--postgres-version: PostgreSQL ${text} is too old`, {
    hint: `replctl works with PostgreSQL ${oldest} or newer.`,
  })
}
