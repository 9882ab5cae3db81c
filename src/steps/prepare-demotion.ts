import type { FenceMark, NodeFacts } from '../cluster/facts.ts'
import type { NodeSettings } from '../cluster/inventory.ts'
import type { Exchange } from '../cluster/judge-switchover.ts'
import { hasHandedOver } from '../cluster/judge-switchover.ts'
import { nodeName } from '../cluster/names.ts'
import { ownedStandbyFile } from '../cluster/node-configuration.ts'
import { stateDirectoryOf } from '../cluster/state-directory.ts'
import { pending, type Step, type StepContext, satisfied, unknownUntil } from '../engine/step.ts'
import { stateScript } from '../node/node.ts'
import { capabilitiesOf } from '../postgres/versions.ts'
import type { ClusterInput } from './cluster-input.ts'
import { removeStateFile } from './ensure-mark.ts'
import { standbySettingsText } from './ensure-standby-settings.ts'
import { look, lookAsChecked, majorOf } from './look.ts'

/** Under this name the settings wait in the state directory where their presence alone would make a standby (11). */
export const preparedRecoveryFile = 'recovery.conf.next'

const title = (candidate: string) => `prepare it to hand over to ${candidate}`

/** Who hands over to whom, as the steps of an unfinished switchover tell; null where none was begun. */
export function rolesBegun(begun: readonly string[]): Exchange | null {
  for (const key of begun) {
    const match = /^(.+): prepare it to hand over to (.+)$/.exec(key)
    if (match?.[1] !== undefined && match[2] !== undefined) {
      return { oldPrimary: nodeName(match[1]), candidate: nodeName(match[2]) }
    }
  }
  return null
}

/** Standard input: the mark in the first line, then the settings. A copy of what was there is kept once. */
const prepareScript = `
IFS= read -r mark || exit 65
if [ -z "$3" ]; then
  if [ -e "$2" ]; then cp -p -- "$2" "$state/standby.before" || exit 74; else rm -f "$state/standby.before"; fi
fi
put() { cat > "$1.new" && chmod 0600 "$1.new" && { sync "$1.new" 2>/dev/null || sync; } && mv -f -- "$1.new" "$1"; }
printf '%s\\n' "$mark" | put "$state/fenced.json" || exit 74
put "$2" || exit 74
`
const restoreScript = `
if [ -e "$state/standby.before" ]; then mv -f -- "$state/standby.before" "$2"; else rm -f -- "$2"; fi
`

/**
 * While the primary still serves: the mark that it is about to leave its post, and the settings it will come back with as a
 * standby. Nothing of it has an effect before the standby signal is there, which the stop itself leaves. It is the first
 * change of a switchover, so that whoever finds the mark after an interruption knows the two.
 */
export function prepareDemotion(exchange: Exchange, upstream: NodeSettings, input: ClusterInput): Step {
  const { oldPrimary, candidate } = exchange
  const pathOf = (ctx: StepContext, facts: NodeFacts) =>
    capabilitiesOf(majorOf(facts)).recoveryConf
      ? `${stateDirectoryOf(facts.home, ctx.node.settings)}/${preparedRecoveryFile}`
      : `${facts.configDirectory}/${ownedStandbyFile}`
  return {
    title: title(candidate),
    node: oldPrimary,
    check: async (ctx) => {
      const [facts, other] = await Promise.all([look(ctx), look(ctx, candidate)])
      if (hasHandedOver(facts, other)) return satisfied('it has left its post already')
      if (facts.fence?.newPrimary !== candidate) return pending('it is not marked')
      return pending('its settings are written again')
    },
    apply: async (ctx) => {
      const facts = await lookAsChecked(ctx)
      const mark: FenceMark = {
        newPrimary: candidate,
        timeline: facts.instance?.timeline ?? facts.control?.timeline ?? 0,
        at: new Date().toISOString(),
        wasRunning: true,
      }
      const text = `${JSON.stringify(mark)}\n${await standbySettingsText(ctx, facts, upstream, input)}`
      const isAgain = facts.fence?.newPrimary === candidate
      const args = [pathOf(ctx, facts), isAgain ? 'again' : '']
      await ctx.node.output(
        stateScript(ctx.node, 'write the settings of a standby', prepareScript, args, text, {
          isQuick: true,
        }),
      )
    },
    verify: async () => undefined,
    undo: async (ctx) => {
      const facts = await look(ctx)
      if (facts.fence === null) return
      await ctx.node.output(
        stateScript(ctx.node, 'put the settings back', restoreScript, [pathOf(ctx, facts)], undefined, {
          isQuick: true,
        }),
      )
      await removeStateFile(ctx, oldPrimary, 'fenced.json')
    },
  }
}

/** A step of the primary's way back: as long as it leads, a plan cannot find done what its stop will undo. */
export const onceStopped = (step: Step): Step => ({
  ...step,
  check: async (ctx) => {
    const isLeading = ctx.isDryRun && (await look(ctx)).instance?.isInRecovery === false
    return isLeading ? unknownUntil('the primary is stopped') : await step.check(ctx)
  },
})
