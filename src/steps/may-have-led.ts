import type { NodeFacts } from '../cluster/facts.ts'
import { triggerFileOf } from '../cluster/node-configuration.ts'
import { shellScript } from '../command.ts'
import type { Node } from '../node/node.ts'
import { surveyNode } from '../node/survey.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import { killAllScript } from './fence-instance.ts'
import { majorOf } from './look.ts'

/**
 * Whether a node that was told to promote may have led, or may yet; false: it certainly has not, and will not when it is started.
 * Its processes are gone and it would come up as a standby: the signal goes before the first write is accepted. What outlived
 * its postmaster may still end recovery, and confirm commits: it is ended before anything is believed. A trigger file that was
 * not noticed any more would still promote it when it is started; pg_promote() leaves nothing that a start minds.
 * `graceMs`: one that crashed takes a moment to end.
 * @throws if it cannot be reached
 */
export async function mayHaveLed(node: Node, graceMs = 0): Promise<boolean> {
  if (mayLead(await lookAtEnd(node, graceMs))) return true
  const { dataDir } = node.settings.postgres
  const ended = await node.run(shellScript('end what is left of PostgreSQL', killAllScript, [dataDir]))
  const facts = await lookAtHost(node)
  if (ended.status !== 0 || mayLead(facts)) return true
  if (!capabilitiesOf(majorOf(facts)).triggerFile) return false
  const path = triggerFileOf(facts.home, node.settings)
  const remove = `rm -f -- "$1" || exit 74; sync "\${1%/*}" 2>/dev/null || sync`
  await node.output(shellScript(`remove ${path}`, remove, [path]))
  // Whoever started it meanwhile may have been quicker.
  return mayLead(await lookAtHost(node))
}

const mayLead = ({ instance, postmaster, hasStandbySignal }: NodeFacts): boolean =>
  instance !== null || postmaster?.isAlive === true || !hasStandbySignal

/** As soon as nothing of it runs, or time is up. */
async function lookAtEnd(node: Node, graceMs: number): Promise<NodeFacts> {
  const deadline = Date.now() + graceMs
  for (;;) {
    const facts = await lookAtHost(node)
    const isEnding = facts.instance === null && facts.postmaster?.isAlive === true
    if (!isEnding || facts.postmaster?.isFrozen === true || Date.now() > deadline) return facts
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function lookAtHost(node: Node): Promise<NodeFacts> {
  const facts = await surveyNode(node)
  if (facts.unreachable !== null) throw facts.unreachable
  return facts
}
