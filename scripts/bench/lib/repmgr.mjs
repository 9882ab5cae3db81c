/** Debian's repmgr for PostgreSQL 15 on the same hosts, as a peer to compare with. */
import { spawnSync } from 'node:child_process'

export const repmgrCommand = '/usr/lib/postgresql/15/bin/repmgr -f /var/lib/postgresql/repmgr.conf'

/** Whether repmgr is there; installs it where that is possible, else says what is left out. */
export function hasRepmgr() {
  const isThere = () => spawnSync('test', ['-x', '/usr/lib/postgresql/15/bin/repmgr']).status === 0
  if (isThere()) return true
  console.error('installing postgresql-15-repmgr …')
  const install = () =>
    spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'postgresql-15-repmgr'], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
  if (install().status !== 0) {
    spawnSync('apt-get', ['update', '-qq'], { stdio: 'ignore' })
    install()
  }
  if (isThere()) return true
  console.error('repmgr is not installed (apt-get install postgresql-15-repmgr): left out')
  return false
}

/** Registers a running cluster's nodes with repmgr. The inventory has to let the role repmgr in. */
export async function setUpRepmgr({ hosts }) {
  const sql = (statement) => hosts.exec('pg1', ['psql', '-qc', statement, 'postgres'], { user: 'postgres' })
  await sql('CREATE ROLE repmgr SUPERUSER LOGIN REPLICATION')
  await sql('CREATE DATABASE repmgr OWNER repmgr')
  for (const [index, name] of ['pg1', 'pg2', 'pg3'].entries()) {
    const conninfo = `host=${hosts.addressOf(name)} user=repmgr dbname=repmgr connect_timeout=2`
    await hosts.writeFile(
      name,
      '/var/lib/postgresql/repmgr.conf',
      [
        `node_id=${index + 1}`,
        // repmgr looks for its standbys by application_name.
        `node_name='shop_${name}'`,
        `conninfo='${conninfo}'`,
        `data_directory='/var/lib/postgresql/15/shop'`,
        `pg_bindir='/usr/lib/postgresql/15/bin'`,
        'use_replication_slots=yes',
      ].join('\n'),
    )
  }
  await hosts.exec('pg1', `${repmgrCommand} primary register`, { user: 'postgres' })
  for (const name of ['pg2', 'pg3']) {
    await hosts.exec(
      name,
      `for i in 1 2 3 4 5 6 7 8 9; do ${repmgrCommand} standby register --force && exit 0; sleep 0.3; done; exit 1`,
      { user: 'postgres' },
    )
  }
}
