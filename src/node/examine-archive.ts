import { archiveClosed } from '../cluster/archive-closed.ts'
import { shellScript } from '../command.ts'
import { ReplctlError } from '../errors.ts'
import type { Node } from './node.ts'

const script = `
at=$1
while [ ! -e "$at" ]; do at=$(dirname -- "$at"); done
if [ -d "$at" ] && [ -w "$at" ] && [ -x "$at" ]; then echo yes; else echo no; fi
printf '%s\\n' "$at"
df -Pk -- "$at" 2>/dev/null | awk 'NR == 2 { print $4 }'
`

/** Whether the archive's folder is there or can be made, and how much room it has. @throws if the host cannot be reached */
export async function examineArchive(
  host: Node,
  dir: string,
): Promise<{ readonly detail: string } | { readonly error: ReplctlError }> {
  await host.transport.connect()
  const output = await host.output(shellScript(`look at ${dir}`, script, [dir]), { timeoutMs: 4_000 })
  const [isWritable, place = dir, kibibytes] = output.trim().split('\n')
  if (isWritable === 'yes') {
    const free = kibibytes === undefined ? '' : `, ${(Number(kibibytes) / 2 ** 20).toFixed(1)} GiB are free`
    return { detail: `${dir} ${place === dir ? 'is there' : 'can be made'}${free}` }
  }
  const { osUser } = host.settings.postgres
  return { error: archiveClosed({ dir, host: host.settings.host, user: osUser, place }) }
}

const streamScript = `
command -v flock >/dev/null 2>&1 || echo 'missing there is no flock'
found=
for directory in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/pgsql/bin $(printf %s "$PATH" | tr : ' '); do
  if [ -x "$directory/pg_receivewal" ] && [ -x "$directory/psql" ]; then found=yes; break; fi
done
[ -n "$found" ] || echo 'missing there is no pg_receivewal with a psql beside it'
if ! command -v crontab >/dev/null 2>&1; then echo 'boot there is no crontab'
elif ! ps -e -o comm= | grep -Eq '^(cron|crond|fcron|busybox)$'; then echo 'boot no cron runs'
elif ! crontab -l 2>/dev/null | grep -q '# replctl:.*:archive-stream$'; then echo 'boot its crontab does not start it'
fi
:
`

/** Whether an archive host has what it takes to receive WAL, and whether anything starts that after a reboot. */
export async function examineArchiveStream(
  host: Node,
): Promise<{ readonly missing: ReplctlError | null; readonly atBoot: ReplctlError | null }> {
  const output = await host.output(shellScript('look at the archive stream', streamScript), {
    timeoutMs: 4_000,
  })
  const said = (word: string) =>
    output
      .split('\n')
      .find((line) => line.startsWith(`${word} `))
      ?.slice(word.length + 1)
  const [missing, boot] = [said('missing'), said('boot')]
  const at = { node: host.name }
  return {
    missing:
      missing === undefined
        ? null
        : new ReplctlError('binaries-missing', `${host.settings.host} lacks what it takes to receive WAL`, {
            detail: `${missing}.`,
            hint: "Install the PostgreSQL client programs of the nodes' major version there, e.g. apt-get install postgresql-client-15",
            ...at,
          }),
    atBoot:
      boot === undefined
        ? null
        : new ReplctlError(
            'archive-unattended',
            `nothing starts the archive stream when ${host.settings.host} boots`,
            {
              detail: `For its user ${boot}.`,
              hint: 'Install cron there and run "replctl init primary", or have ~/.replctl/CLUSTER/archive-stream started at boot; promote and switchover start it, too.',
              ...at,
            },
          ),
  }
}
