import type { Inventory } from '../cluster/inventory.ts'
import type { GuardTemplates } from '../node/start-guard.ts'

/** The texts of templates/, loaded once per command. */
export interface Templates extends GuardTemplates {
  readonly postgresqlConf: string
  readonly pgHba: string
  readonly standbyConf: string
  readonly recoveryConf: string
  readonly archivePush: string
  readonly archiveReceive: string
  readonly archiveFetch: string
  readonly archiveStream: string
}

/** What every runbook is built from: the operator's wishes and the texts to render. */
export interface ClusterInput {
  readonly inventory: Inventory
  readonly templates: Templates
}
