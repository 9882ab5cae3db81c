import { readFile, rm } from 'node:fs/promises'
import type { StepReport } from '../../engine/events.ts'
import { ReplctlError } from '../../errors.ts'
import type { Answer, Call } from '../command-spec.ts'
import { bringUp } from '../sandbox/bring-up.ts'
import { findPrograms } from '../sandbox/find-programs.ts'
import {
  createFile,
  ensureFolder,
  ensureOwned,
  ensurePassword,
  inventoryOf,
  nodeFolder,
  nullIfMissing,
  readMark,
} from '../sandbox/folder.ts'
import { findFreePorts } from '../sandbox/free-ports.ts'
import { sandboxInventoryText } from '../sandbox/inventory-text.ts'
import { findPlace, type SandboxPlace } from '../sandbox/place.ts'
import { planNew } from '../sandbox/plan-new.ts'
import { runProgram } from '../sandbox/run-program.ts'

/**
 * `replctl sandbox up [--standbys N] [--dir DIR] [--fetch-postgres]`: writes an inventory of nodes on this machine, then
 * does what an operator would: init primary, add-standby. What is there already is found, so it can be repeated.
 */
export async function run(call: Call): Promise<Answer> {
  const place = await findPlace(call)
  const standbys = readStandbys(call.options.standbys)
  const known = (await readMark(place)) === null ? null : await countNodes(place)
  if (known !== null) refuseOtherSize(known, standbys, place)
  if (call.flags.isDryRun)
    return known === null ? await planNew(call, place, standbys ?? 2) : await bringUp(call, place)
  if (known === null) return await bringUp(call, place, [await makeSandbox(call, place, standbys ?? 2)])
  await ensureFolder(place)
  return await bringUp(call, place)
}

/** The inventory comes last: a folder without one was begun by a run that was killed, and is begun again. */
async function makeSandbox(call: Call, place: SandboxPlace, standbys: number): Promise<StepReport> {
  const startedAt = performance.now()
  const binDir = await findPrograms(call, place)
  const mark = await ensureFolder(place)
  await requireWayIn(place)
  await ensurePassword(place)
  const ports = await findFreePorts(standbys + 1, place.dir)
  for (const index of ports.keys()) await ensureOwned(nodeFolder(place, `pg${index + 1}`), place)
  await createFile(inventoryOf(place), sandboxInventoryText(place, { binDir, mark, ports }), 0o644)
  const ms = Math.round(performance.now() - startedAt)
  return { n: 1, node: call.io.hostName, title: 'make its folder and its inventory', state: 'applied', ms }
}

/** Root may well name a folder that the instances' user cannot get into. */
async function requireWayIn({ dir, osUser, owner }: SandboxPlace): Promise<void> {
  if (owner === null || (await runProgram('runuser', ['-u', osUser, '--', 'test', '-x', dir])).status !== 1)
    return
  await rm(dir, { recursive: true, force: true })
  throw new ReplctlError('sandbox-unavailable', `the user "${osUser}" cannot get into ${dir}`, {
    detail: 'PostgreSQL refuses to run as root, so root runs the sandbox as that user.',
    hint: 'Name a folder with --dir that everybody can pass to, or leave --dir out.',
  })
}

function readStandbys(given: unknown): number | undefined {
  if (given === undefined) return undefined
  if (/^\d{1,2}$/.test(String(given)) && Number(given) <= 16) return Number(given)
  throw new ReplctlError('usage', `--standbys: ${JSON.stringify(given)} is not a number from 0 to 16`)
}

/** Number of nodes of the sandbox that is there; null where its inventory was never written. */
async function countNodes(place: SandboxPlace): Promise<number | null> {
  const text = await readFile(inventoryOf(place), 'utf8').catch(nullIfMissing)
  return text === null ? null : [...text.matchAll(/^ {2}pg\d+: \{ host: local/gm)].length
}

function refuseOtherSize(nodes: number, standbys: number | undefined, { dir }: SandboxPlace): void {
  if (standbys === undefined || standbys === nodes - 1) return
  throw new ReplctlError(
    'sandbox-unavailable',
    `the sandbox in ${dir} was made with --standbys ${nodes - 1}, not ${standbys}`,
    {
      hint: 'End it first: replctl sandbox down. Or name another folder with --dir.',
    },
  )
}
