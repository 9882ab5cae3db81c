import type { Inventory } from '../cluster/inventory.ts'
import type { NodeName } from '../cluster/names.ts'
import { ownSlots, type Roles } from '../cluster/roles.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { asReplctlError, ReplctlError } from '../errors.ts'
import { readTextFile } from '../node/files.ts'
import type { Node } from '../node/node.ts'
import { readSlotFiles, type SlotFile } from '../node/slot-files.ts'
import { quoteLiteral } from '../postgres/sql.ts'
import { removeStateFile, writeStateFile } from './ensure-mark.ts'
import { look, sqlNow } from './look.ts'

/** Physical slots that others made, as they are noted beside the data directory that they were in. */
type Note = readonly Pick<SlotFile, 'name' | 'isReserved'>[]

const noteFile = 'slots.json'

/** What of these slots is not replctl's own. */
export function foreignSlotsOf(
  slots: readonly SlotFile[],
  inventory: Inventory,
  { removedSlots }: Pick<Roles, 'removedSlots'>,
): readonly SlotFile[] {
  const idle = { isActive: false, isFailover: false, isSynced: false }
  const unknown = { restartLsn: null, walStatus: null, invalidationReason: null }
  const own = ownSlots(
    inventory,
    { slots: slots.map((slot) => ({ ...slot, ...idle, ...unknown })) },
    removedSlots,
  )
  return slots.filter((slot) => !slot.isTemporary && !own.includes(slot.name))
}

/** What was noted of a node before its data directory was replaced; empty: nothing. */
export async function readNotedSlots(node: Node, home: string): Promise<Note> {
  const text = await readTextFile(node, `${stateDirectoryOf(home, node.settings)}/${noteFile}`)
  try {
    return JSON.parse(text ?? '[]') as Note
  } catch {
    return []
  }
}

/**
 * A rewind and a clone end every slot of a node. Physical ones that others made are noted before, where a run that is killed half
 * way leaves them, so that {@link remakeForeignSlots} makes them again. `isContinued`: an earlier run has noted them, and what was in
 * the data directory is gone by now.
 */
export function noteForeignSlots(
  node: NodeName,
  inventory: Inventory,
  roles: Pick<Roles, 'removedSlots'>,
  { isContinued }: { readonly isContinued: boolean },
): Step {
  const wanted = async (ctx: StepContext): Promise<Note> =>
    foreignSlotsOf(await readSlotFiles(ctx.node), inventory, roles)
      .filter((slot) => slot.type === 'physical')
      .map(({ name, isReserved }) => ({ name, isReserved }))
  return {
    title: 'note the physical slots that others made',
    node,
    showsOnlyOnItsNode: true,
    check: async (ctx) => {
      if (isContinued) return satisfied('an earlier run has seen to that')
      const [there, noted] = [await wanted(ctx), await noteOf(ctx)]
      if (JSON.stringify(there) === JSON.stringify(noted))
        return satisfied(there.length === 0 ? 'there are none' : 'they are noted')
      return pending(`there are: ${namesOf(there)}`)
    },
    apply: async (ctx) => {
      const there = await wanted(ctx)
      if (there.length === 0) await removeStateFile(ctx, node, noteFile)
      else await writeStateFile(ctx, node, noteFile, `${JSON.stringify(there)}\n`)
    },
    undo: (ctx) => removeStateFile(ctx, node, noteFile),
  }
}

/**
 * The noted slots are there again, under their names: whoever uses one finds it, and WAL is kept from now on. `isReplaced`: the run
 * replaces what is in the data directory; an earlier one may have done so before it was cut off.
 */
export function remakeForeignSlots(
  node: NodeName,
  inventory: Inventory,
  roles: Pick<Roles, 'removedSlots'>,
  { isReplaced }: { readonly isReplaced: boolean },
): Step {
  return {
    title: 'make the slots of others again that were noted',
    node,
    check: async (ctx) => {
      const noted = await noteOf(ctx)
      if (noted.length > 0)
        return ctx.isDryRun ? unknownUntil('it streams') : pending(`noted: ${namesOf(noted)}`)
      if (!ctx.isDryRun || !isReplaced) return satisfied('none are noted')
      const there = foreignSlotsOf(await readSlotFiles(ctx.node), inventory, roles)
      return there.some((slot) => slot.type === 'physical')
        ? unknownUntil('they are noted')
        : satisfied('there are none')
    },
    apply: async (ctx) => {
      const sql = await sqlNow(ctx)
      for (const { name, isReserved } of await noteOf(ctx)) {
        const slot = quoteLiteral(name)
        if ((await sql.value(`SELECT 1 FROM pg_replication_slots WHERE slot_name = ${slot}`)) !== null)
          continue
        try {
          await sql.execute(`SELECT pg_create_physical_replication_slot(${slot}, ${isReserved})`)
        } catch (thrown) {
          // The node streams; it is not to be held up by what others can make as well.
          ctx.warn(notRemade(node, name, asReplctlError(thrown)))
        }
      }
      await removeStateFile(ctx, node, noteFile)
    },
  }
}

const namesOf = (note: Note): string => note.map((slot) => slot.name).join(', ')

async function noteOf(ctx: StepContext): Promise<Note> {
  return await readNotedSlots(ctx.node, (await look(ctx)).home)
}

function notRemade(node: NodeName, slot: string, { message, detail }: ReplctlError): ReplctlError {
  return new ReplctlError('foreign-slot', `slot "${slot}" on ${node} could not be made again`, {
    detail: `It was made on ${node} by somebody else. ${detail ?? message}`,
    hint: `Make room, then: SELECT pg_create_physical_replication_slot('${slot}', true);`,
    node,
  })
}
