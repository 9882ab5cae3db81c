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

/**
 * Keeps what is built on the hosts, so that `restoreHosts` has it back in about a second. Instances that run are stopped and
 * started; one that lies there stopped stays as it is, then and when it is restored.
 */
export async function saveHosts(hosts: TestHosts): Promise<void> {
  const save = `
rm -rf "$1-saved"; mkdir "$1-saved"
[ -d "$1" ] || exit 0
control() { runuser -u postgres -- /usr/lib/postgresql/*/bin/pg_ctl "$@"; }
if control status -s -D "$1"; then
  control stop -s -w -m fast -D "$1" || exit 1
  [ ! -e "$1/postmaster.pid" ] || { echo "$1 still runs" >&2; exit 1; }
  touch "$1-saved/runs"
fi
cp -a "$1/." "$1-saved/data" || exit 1
cp -a ~postgres/.replctl "$1-saved/state" || exit 1
${start}`
  for (const host of hosts.names) await onHost(hosts, host, save) // in the order of the nodes: the primary first
}

/** Puts back what `saveHosts` kept: files, running instances, network and sshd. */
export async function restoreHosts(hosts: TestHosts): Promise<void> {
  const restore = `${killInstances}
rm -rf "$1".* ~postgres/.replctl
[ -d "$1-saved/data" ] || { rm -rf "$1"; exit 0; }
mkdir -p "$1"; find "$1" -mindepth 1 -delete
cp -a "$1-saved/data/." "$1" || exit 1
cp -a "$1-saved/state" ~postgres/.replctl || exit 1
${start}`
  await onEach(hosts, restore)
}

const start = `
[ -e "$1-saved/runs" ] || exit 0
runuser -u postgres -- /usr/lib/postgresql/*/bin/pg_ctl start -s -w -D "$1" -l "$1.log" </dev/null >/dev/null 2>&1 || {
  echo "$1 did not start" >&2
  tail -n 20 "$1.log" >&2
  exit 1
}
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
