import type { SalvageRecord } from '../../cluster/salvage.ts'
import { factsOf } from '../../cluster/topology.ts'
import { twoWriters } from '../../cluster/two-writers.ts'
import { ReplctlError } from '../../errors.ts'
import { isIsolated } from '../../node/isolated-instance.ts'
import { salvageText } from '../../report/salvage.ts'
import { salvage } from '../../runbooks/salvage.ts'
import { notAllSaved, readSalvage } from '../../steps/salvage-diverged.ts'
import { findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { operate, requireReachable } from '../operation.ts'

/** `replctl salvage NODE`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const { inventory, templates } = session
    const { name } = findNode(inventory, String(call.args[0]))
    return await operate(call, {
      session,
      wish: { node: name },
      overridesUnfinished: true,
      isAside: true,
      decide: ({ survey, topology }) => {
        requireReachable(survey, [name])
        if (topology.writers.length > 1) throw twoWriters(topology)
        const { primary } = topology
        if (primary === null) throw noPrimary()
        if (primary === name) throw isPrimary(name)
        const facts = factsOf(survey, name)
        const node = session.nodes.get(name)
        if (facts.postmaster?.isAlive === true && (node === undefined || !isIsolated(node, facts))) {
          throw stillRuns(name)
        }
        let record: SalvageRecord | null = null
        return {
          plan: salvage({ inventory, templates }, { node: name, primary }),
          result: async () => {
            record = node === undefined ? null : await readSalvage(node)
            return { node: name, salvage: record }
          },
          shortfall: () => (record === null || record.isComplete ? null : notAllSaved(record)),
          text: (_after, { hasChanged }, paint) => salvageText(name, record, hasChanged, paint),
          problems: [],
        }
      },
    })
  } finally {
    await session.close()
  }
}

function noPrimary(): ReplctlError {
  return new ReplctlError('no-primary', 'there is no primary to compare with', {
    hint: 'Promote a standby first: replctl promote',
  })
}

function isPrimary(node: string): ReplctlError {
  return new ReplctlError('primary-alive', `${node} is the primary: there is nothing that only it lost`, {
    node,
  })
}

function stillRuns(node: string): ReplctlError {
  return new ReplctlError('data-directory-in-use', `PostgreSQL runs on ${node}`, {
    detail: 'What only it has is read out while it is stopped.',
    hint: `Stop it, then run the command again; or bring it back as a standby: replctl rejoin ${node}`,
    node,
  })
}
