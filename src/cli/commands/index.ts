import type { CommandSpec } from '../command-spec.ts'
import { addStandby } from './add-standby.ts'
import { archiveCheck, archivePrune, archiveStatus } from './archive.ts'
import { backup, backupExpire, backupList, backupVerify } from './backup.ts'
import { completion } from './completion.ts'
import { doctor } from './doctor.ts'
import { follow } from './follow.ts'
import { initPrimary } from './init-primary.ts'
import { newCluster, schema } from './new.ts'
import { promote } from './promote.ts'
import { rejoin } from './rejoin.ts'
import { removeStandby } from './remove-standby.ts'
import { restore } from './restore.ts'
import { abort, resume } from './resume.ts'
import { salvage } from './salvage.ts'
import { sandboxDown, sandboxStatus, sandboxUp } from './sandbox.ts'
import { status } from './status.ts'
import { switchover } from './switchover.ts'
import { verify } from './verify.ts'

/** Every command, in the order of --help. */
export const commands: readonly CommandSpec[] = [
  newCluster,
  doctor,
  initPrimary,
  addStandby,
  verify,
  status,
  promote,
  switchover,
  rejoin,
  salvage,
  follow,
  removeStandby,
  backup,
  backupList,
  backupVerify,
  backupExpire,
  restore,
  archiveCheck,
  archiveStatus,
  archivePrune,
  resume,
  abort,
  sandboxUp,
  sandboxStatus,
  sandboxDown,
  schema,
  completion,
]
