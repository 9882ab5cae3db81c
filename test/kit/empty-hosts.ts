import type { TestHosts } from './test-hosts.ts'

/** Ends every instance of a host. */
const killInstances = `
for entry in /proc/[0-9]*; do
  case $(cat "$entry/comm" 2>/dev/null) in postgres*|pg_*|psql) kill -KILL "\${entry#/proc/}" 2>/dev/null ;; esac
done
rm -rf /tmp/.s.PGSQL.* /var/run/postgresql/.s.PGSQL.* /dev/shm/PostgreSQL.*
`

/** Takes everything a cluster left off the hosts, and puts their network and sshd in order, for the next test. */
export async function emptyHosts(hosts: TestHosts): Promise<void> {
  await onEach(hosts, `${killInstances}rm -rf "$1" "$1".* "$1"-saved ~postgres/.replctl`)
}

/** Keeps what is built on the hosts, so that `restoreHosts` has it back in about a second. All instances are stopped and started. */
export async function saveHosts(hosts: TestHosts): Promise<void> {
  const save = `
rm -rf "$1-saved"; mkdir "$1-saved"
[ -d "$1" ] || exit 0
pg=$(echo /usr/lib/postgresql/*/bin)
runuser -u postgres -- "$pg/pg_ctl" stop -s -w -m fast -D "$1"
cp -a "$1/." "$1-saved/data"; cp -a ~postgres/.replctl "$1-saved/state"
${start}`
  for (const host of hosts.names) await onHost(hosts, host, save) // in the order of the nodes: the primary first
}

/** Puts back what `saveHosts` kept: files, running instances, network and sshd. */
export async function restoreHosts(hosts: TestHosts): Promise<void> {
  const restore = `${killInstances}
rm -rf "$1".* ~postgres/.replctl
[ -d "$1-saved/data" ] || { rm -rf "$1"; exit 0; }
mkdir -p "$1"; find "$1" -mindepth 1 -delete
cp -a "$1-saved/data/." "$1"; cp -a "$1-saved/state" ~postgres/.replctl
${start}`
  await onEach(hosts, restore)
}

const start = `
pg=$(echo /usr/lib/postgresql/*/bin)
runuser -u postgres -- "$pg/pg_ctl" start -s -w -D "$1" -l "$1.log" </dev/null >/dev/null 2>&1
`

async function onEach(hosts: TestHosts, script: string): Promise<void> {
  await Promise.all(
    hosts.names.map(async (host) => {
      await hosts.powerOn(host)
      await hosts.restoreLink(host)
      await hosts.startSshd(host)
      await onHost(hosts, host, script)
    }),
  )
}

async function onHost(hosts: TestHosts, host: string, script: string): Promise<void> {
  const { dataDir } = hosts.postgresOf(host)
  await hosts.exec(host, ['sh', '-c', `${script}\n:`, 'sh', dataDir])
}
