import type { NodeFacts, Survey } from '../../cluster/facts.ts'
import type { Inventory } from '../../cluster/inventory.ts'
import { refusalOfRoleChange } from '../../cluster/judge-role-change.ts'
import { refusalOfUnknownMember } from '../../cluster/judge-unknown-member.ts'
import type { NodeName } from '../../cluster/names.ts'
import { ownedConfigFile } from '../../cluster/node-configuration.ts'
import { problemOf } from '../../cluster/problem.ts'
import { commonRecord, identifierOf, isForeign, nextGeneration } from '../../cluster/record.ts'
import { confirmingStandbys, liveRoles, neverConfirming } from '../../cluster/roles.ts'
import { factsOf, isRunningStandby, type ObservedNode, timelineOf } from '../../cluster/topology.ts'
import { ReplctlError } from '../../errors.ts'
import { readTextFile } from '../../node/files.ts'
import type { Node } from '../../node/node.ts'
import { lastValues, parseConfigFile } from '../../postgres/config-file.ts'
import { parseSynchronousStandbyNames } from '../../postgres/synchronous-standby-names.ts'
import { type InitWish, initPrimary } from '../../runbooks/init-primary.ts'
import { findNode, openCluster } from '../cluster-session.ts'
import type { Answer, Call } from '../command-spec.ts'
import { type Observation, operate, requireReachable } from '../operation.ts'
import { adoptPrimary } from './adopt-primary.ts'

/** `replctl init primary [NODE]`. */
export async function run(call: Call): Promise<Answer> {
  const session = await openCluster(call)
  try {
    const { inventory, templates } = session
    const named = call.args[0] as string | undefined
    const node = named === undefined ? inventory.nodes[0] : findNode(inventory, named)
    if (node === undefined) throw new ReplctlError('usage', 'the inventory has no nodes')
    const on = session.nodes.get(node.name)
    if (on === undefined) throw new RangeError(`no connection to node ${node.name}`)
    if (call.options.adopt === true) return await adoptPrimary(call, session, node)
    return await operate(call, {
      session,
      wish: { node: node.name },
      decide: async (observation) => {
        requireReachable(observation.survey, [node.name])
        // What was begun can be taken back whatever stands elsewhere by now.
        if (call.options.isAbort !== true) {
          refuseSecondPrimary(observation, node.name)
          refuseFormerMember(observation, node.name)
          const refusedFor =
            refusalOfUnknownMember(inventory, observation.topology) ??
            refusalOfRoleChange(inventory, observation.topology, [])
          if (refusedFor !== null) throw refusedFor
        }
        return {
          plan: initPrimary({ inventory, templates }, node, await wishFor(observation, inventory, on)),
          problems: unknownNodes(observation, node.name).map((error) => problemOf(error, 'warning')),
          result: (after) => {
            const { control, instance } = after.survey.find((facts) => facts.name === node.name) ?? {}
            return {
              node: node.name,
              system_identifier: instance?.systemIdentifier ?? control?.systemIdentifier ?? null,
              timeline: instance?.timeline ?? null,
            }
          },
          text: (_after, _outcome, paint) =>
            `${paint.strong(node.name)} is the primary of cluster ${inventory.cluster}.\nNext: replctl add-standby NODE…\n`,
        }
      },
    })
  } finally {
    await session.close()
  }
}

/** A cluster that has a primary elsewhere does not get a second one. */
export function refuseSecondPrimary({ topology, survey }: Observation, node: string): void {
  const other = topology.writers.find((name) => name !== node)
  if (other !== undefined) {
    throw new ReplctlError('primary-alive', `refused to make ${node} a primary: ${other} is the primary`, {
      hint: `Add ${node} as a standby instead: replctl add-standby ${node}`,
      node: other,
    })
  }
  const built = survey.find(
    (facts) => facts.name !== node && facts.mark?.phase === 'done' && facts.dataDirectoryState === 'instance',
  )
  const own = survey.find((facts) => facts.name === node)
  const isGone = own?.dataDirectoryState !== 'instance'
  // It leads by everybody's word, and lost no more than replctl's own mark: that is put back, not begun anew.
  const leads =
    topology.primary === node &&
    commonRecord(survey)?.primary === node &&
    own?.instance?.systemIdentifier === built?.mark?.systemIdentifier
  if (built !== undefined && !leads && (own?.mark?.phase !== 'done' || isGone)) {
    throw new ReplctlError('foreign-cluster', `refused to begin the cluster anew on ${node}`, {
      detail: `${built.name} holds an instance of cluster ${built.mark?.cluster} (system identifier ${built.mark?.systemIdentifier}).`,
      hint: `If its primary is lost: replctl promote. If it is stopped: start it.${own?.mark?.phase === 'done' ? ` ${lookForMount(own)}` : ''}`,
      node,
    })
  }
  const isClone = own?.mark?.phase === 'cloning' || own?.mark?.phase === 'cloned'
  if (isClone && own.dataDirectoryState !== 'missing') {
    throw new ReplctlError(
      'foreign-cluster',
      `refused to begin the cluster anew on ${node}: a clone was begun there`,
      {
        detail: `The cluster that ${own.mark?.dataDirectory} is a clone of has its primary elsewhere.`,
        hint: `Bring that back and go on: replctl add-standby ${node}. If it is lost: replctl promote. To give the clone up: replctl abort`,
        node,
      },
    )
  }
  const silent = survey.find(
    (facts) => facts.name !== node && facts.unreachable !== null && own?.record?.members.includes(facts.name),
  )
  if (own?.mark?.phase === 'done' && isGone && silent !== undefined) {
    throw new ReplctlError('node-not-built', `refused to begin the cluster anew on ${node}`, {
      detail: `What was built there (${own.mark.dataDirectory}, system identifier ${own.mark.systemIdentifier}) is ${own.dataDirectoryState}, and ${silent.name}, which belongs to the cluster, cannot be asked.`,
      hint: `${lookForMount(own)} Else bring ${silent.name} back first.`,
      node,
    })
  }
}

const lookForMount = ({ mark }: NodeFacts): string =>
  `Look whether the file system of ${mark?.dataDirectory} is mounted.`

/** A node that was built already is started again as what it was: only as the primary that it is known to be. */
export function refuseFormerMember({ survey }: Observation, node: NodeName): void {
  const own = survey.find((facts) => facts.name === node)
  if (own === undefined || own.dataDirectoryState !== 'instance' || own.mark?.phase !== 'done') return
  const leader = commonRecord(survey)?.primary ?? node
  const isStandby = own.hasStandbySignal || own.instance?.isInRecovery === true
  const isFenced = own.fence !== null && own.instance?.isInRecovery !== false
  if (isStandby || isFenced || leader !== node) {
    throw new ReplctlError('foreign-cluster', `refused to begin the cluster anew on ${node}`, {
      detail: `${whatItIs(own, leader)} Making it the primary is a promotion.`,
      hint: `Bring ${leader === node ? 'the primary' : leader} back, or, if it is lost: replctl promote`,
      node,
    })
  }
  const reached = timelineOf(own)
  const newer = survey.find((facts) => {
    const theirs = facts.name === node || isForeign(facts, survey) ? null : timelineOf(facts)
    return theirs !== null && reached !== null && theirs > reached
  })
  if (own.instance === null && newer !== undefined) {
    throw new ReplctlError(
      'primary-unproven',
      `refused to start ${node}: ${newer.name} has been on a newer timeline`,
      {
        detail: `${newer.name} has come to timeline ${timelineOf(newer)}, ${node} to ${reached}: another node led after it.`,
        hint: 'Have the newer one lead: replctl promote',
        node,
      },
    )
  }
  const silent = survey.find(
    (facts) => facts.unreachable !== null && own.record?.members.includes(facts.name),
  )
  if (own.instance === null && silent !== undefined) {
    throw new ReplctlError(
      'primary-unproven',
      `refused to start ${node}: another node may be the primary now`,
      {
        detail: `${silent.name} cannot be reached, and may have been promoted while ${node} was stopped.`,
        hint: `Bring ${silent.name} back first; or see for yourself that it is no primary, and start PostgreSQL on ${node} by hand.`,
        node,
      },
    )
  }
}

function whatItIs(own: NodeFacts, leader: NodeName): string {
  if (own.hasStandbySignal || own.instance?.isInRecovery === true) return `${own.name} is a standby of it.`
  return own.fence === null
    ? `${leader} leads it.`
    : `${own.name} was fenced when ${own.fence.newPrimary} took over.`
}

/** The members of the cluster that this node leads; a new cluster has only this one. */
function membersWith(survey: Survey, node: NodeName): readonly NodeName[] {
  const record = commonRecord(survey)
  const own = survey.find((facts) => facts.name === node)
  // What an earlier life left of it names members that went with it.
  const isThere = own?.dataDirectoryState === 'instance'
  // By what stands there: replctl's own mark may be lost.
  const isSame = isThere && record?.primary === node && identifierOf(own) === record.systemIdentifier
  return isSame ? record.members : [node]
}

/**
 * Who belongs to the cluster, and for whom commits are to wait: members that stream from this node, and those that are waited
 * for now. Whoever is away and not waited for was left out on purpose, by a failover say.
 */
export async function wishFor(
  { survey, topology }: Observation,
  inventory: Inventory,
  node: Node,
): Promise<InitWish> {
  const members = membersWith(survey, node.name)
  const own = factsOf(survey, node.name)
  const name = 'synchronous_standby_names'
  const waited =
    own.instance?.settings[name]?.value ??
    lastValues(
      parseConfigFile((await readTextFile(node, `${own.configDirectory}/${ownedConfigFile}`)) ?? ''),
    ).get(name)
  const names = parseSynchronousStandbyNames(waited ?? '')?.names ?? []
  const mayConfirm = ({ settings, facts }: ObservedNode) =>
    isRunningStandby(facts) || names.includes(settings.applicationName)
  const fit = topology.nodes.filter(mayConfirm).map(({ settings }) => settings.name)
  const roles = liveRoles(inventory, topology, node.name)
  const confirming = confirmingStandbys(inventory, roles, neverConfirming(topology))
  return {
    members,
    generation: nextGeneration(survey, own.dataDirectoryState === 'instance' ? identifierOf(own) : undefined),
    confirming: confirming.filter((one) => members.includes(one) && fit.includes(one)),
    running: survey
      .filter((facts) => members.includes(facts.name) && isRunningStandby(facts))
      .map((facts) => facts.name),
  }
}

function unknownNodes({ survey }: Observation, node: string): ReplctlError[] {
  return survey.flatMap((facts) =>
    facts.name !== node && facts.unreachable !== null ? [facts.unreachable] : [],
  )
}
