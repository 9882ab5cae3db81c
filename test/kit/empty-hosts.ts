import type { TestHosts } from './test-hosts.ts'

/** Takes everything a cluster left off the hosts, and puts their network and sshd in order, for the next test. */
export async function emptyHosts(hosts: TestHosts): Promise<void> {
  await Promise.all(
    hosts.names.map(async (host) => {
      await hosts.powerOn(host)
      await hosts.restoreLink(host)
      await hosts.startSshd(host)
      const { dataDir } = hosts.postgresOf(host)
      const script = `
for entry in /proc/[0-9]*; do
  case $(cat "$entry/comm" 2>/dev/null) in postgres*|pg_*) kill -KILL "\${entry#/proc/}" 2>/dev/null ;; esac
done
rm -rf "$1" "$1".* ~postgres/.replctl /tmp/.s.PGSQL.* /var/run/postgresql/.s.PGSQL.* /dev/shm/PostgreSQL.*
ipcrm --all=shm 2>/dev/null
:
`
      await hosts.exec(host, ['sh', '-c', script, 'sh', dataDir])
    }),
  )
}
