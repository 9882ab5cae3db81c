import { ReplctlError } from '../errors.ts'
import type { Survey } from './facts.ts'
import type { Inventory } from './inventory.ts'
import type { NodeName } from './names.ts'
import { commonRecord } from './record.ts'
import { applicationNameFor } from './replication-names.ts'
import type { Topology } from './topology.ts'

/**
 * Why nothing is rendered from an inventory that lacks a member which receives from another at this moment, as an older copy of it
 * does: it would be no member any more, nobody would wait for its confirmation, and pg_hba.conf would refuse it when it connects the
 * next time. Null: there is none.
 */
export function refusalOfUnknownMember(inventory: Inventory, topology: Topology): ReplctlError | null {
  const survey = topology.nodes.map(({ facts }) => facts)
  const senderTo = (member: string) =>
    survey.find((facts) =>
      facts.instance?.replication.some(
        (one) =>
          one.applicationName === applicationNameFor(inventory.cluster, member) && one.state !== 'backup',
      ),
    )
  for (const member of unknownMembers(inventory, survey)) {
    const sender = senderTo(member)
    if (sender === undefined) continue
    return new ReplctlError(
      'orphan-standby',
      `${member} belongs to the cluster, and the inventory lacks it`,
      {
        detail: `It receives from ${sender.name}. What is rendered from ${inventory.path} would have it refused when it connects the next time, and nobody would wait for what it confirms.`,
        hint: `Put it into the inventory. If it is to leave: replctl remove-standby ${member}, and then take it out of the inventory.`,
        node: sender.name,
      },
    )
  }
  return null
}

/** Members on record that the inventory lacks. */
export function unknownMembers(inventory: Inventory, survey: Survey): readonly NodeName[] {
  const members = commonRecord(survey)?.members ?? []
  return members.filter((member) => !isKnownMember(inventory, survey, member))
}

/** Whether the inventory has it; one that stands there under another name is known by its mark. */
export function isKnownMember({ cluster, nodes }: Inventory, survey: Survey, member: string): boolean {
  const names: readonly string[] = [
    ...nodes.map(({ name }) => name),
    ...survey.flatMap(({ mark }) => (mark?.cluster === cluster ? [mark.node] : [])),
  ]
  return names.includes(member)
}
