import { renderTemplate } from './template.ts'

/** Names in the state directory that replctl and the scripts share. */
export const guardFiles = {
  /** Answers whether the server may start. */
  guard: 'start-guard',
  /** What pg_ctl runs in the server's place: the guard, then the server. */
  server: 'guarded-postgres',
  /** Written by `start-guard --allow-once`; serves one start. */
  permission: 'start-anyway',
} as const

/** Another node that the guard asks. */
export interface GuardPeer {
  readonly name: string
  /** For a physical replication connection; the password stands in the passfile that it names. */
  readonly conninfo: string
}

export interface GuardValues {
  readonly cluster: string
  readonly node: string
  /** Absolute, e.g. `/var/lib/postgresql/.replctl/shop`. */
  readonly stateDirectory: string
  readonly dataDirectory: string
  /** Folder of `postgres`, `psql` and `pg_controldata`. */
  readonly binDirectory: string
}

/** The text of start-guard. */
export function renderStartGuard(
  template: string,
  values: GuardValues & { readonly others: readonly GuardPeer[] },
): string {
  const { others } = values
  return renderTemplate(template, { ...names(values), others }, 'templates/guard/start-guard.sh')
}

/** The text of guarded-postgres. */
export function renderGuardedServer(template: string, values: GuardValues): string {
  return renderTemplate(template, names(values), 'templates/guard/guarded-postgres.sh')
}

/** The text of the drop-in that has a systemd unit run the guard before the server. */
export function renderGuardDropIn(template: string, values: GuardValues): string {
  const guard = systemdWord(`${values.stateDirectory}/${guardFiles.guard}`)
  return renderTemplate(template, { ...names(values), guard }, 'templates/guard/systemd-drop-in.conf')
}

function names(values: GuardValues): Record<string, string> {
  return {
    cluster: values.cluster,
    node: values.node,
    state_directory: values.stateDirectory,
    data_directory: values.dataDirectory,
    bin_directory: values.binDirectory,
  }
}

/** One word of an Exec line: in quotes, with what systemd would expand doubled. @see systemd.service(5), COMMAND LINES */
function systemdWord(text: string): string {
  const quoted = text.replace(/[\\"]/g, '\\$&').replace(/[%$]/g, '$&$&')
  return `"${quoted}"`
}
