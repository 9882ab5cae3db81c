import type { PostgresServer } from './postgres-server.ts'

/**
 * What must be the same on a node after a command that changes nothing: when its postmaster was started, who it is,
 * its configuration, its slots and its data directory.
 */
export async function fingerprint(server: PostgresServer): Promise<Readonly<Record<string, string>>> {
  const { hosts, host, dataDir } = server
  const files = await hosts.exec(host, ['sh', '-c', fileScript, 'sh', dataDir], { user: 'postgres' })
  const isThere =
    (await hosts.exec(host, ['test', '-e', `${dataDir}/PG_VERSION`], { check: false })).exitCode === 0
  const control = isThere ? await server.controlData() : new Map<string, string>()
  const isRunning = isThere && (await server.isRunning())
  const value = async (query: string) => (isRunning ? String(await server.sqlValue(query)) : 'stopped')
  return {
    files: files.stdout,
    systemIdentifier: control.get('Database system identifier') ?? 'none',
    timeline: control.get("Latest checkpoint's TimeLineID") ?? 'none',
    startedAt: await value('SELECT pg_postmaster_start_time()::text'),
    slots: await value(
      "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots",
    ),
    roles: await value(
      "SELECT string_agg(rolname || ':' || coalesce(rolpassword, ''), ',' ORDER BY rolname) FROM pg_authid",
    ),
  }
}

const fileScript = `
cd "$1" 2>/dev/null || { echo "no data directory"; exit 0; }
stat -c 'inode %i' .
for file in postgresql*.conf replctl*.conf pg_hba.conf *.signal recovery.conf conf.d/*; do
  [ -f "$file" ] && stat -c '%i %Y' "$file" && sha256sum "$file"
done
:
`
