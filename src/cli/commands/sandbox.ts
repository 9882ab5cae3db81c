import type { CommandSpec } from '../command-spec.ts'

const dirOption = { flags: '--dir <dir>', summary: 'folder of the sandbox (default: in $XDG_STATE_HOME/replctl)' }

export const sandboxUp: CommandSpec = {
  name: 'sandbox up',
  args: [],
  summary: 'start a throw-away cluster on this machine, without SSH and without root',
  description: `Makes a primary and standbys in a folder of their own, with the same code that runs a real cluster, and prints the inventory
and a URL for each node. Run as root it uses the postgres user.`,
  examples: ['replctl sandbox up --standbys 2', 'replctl -c "$(replctl sandbox status --json | jq -r .result.inventory)" status'],
  options: [{ flags: '--standbys <n>', summary: 'number of standbys (default: 2)' }, dirOption],
  load: () => import('../runs/sandbox-up.ts'),
}

export const sandboxDown: CommandSpec = {
  name: 'sandbox down',
  args: [],
  summary: 'stop the throw-away cluster and delete its folder',
  description: 'Ends the instances that "sandbox up" started and removes what it made.',
  examples: ['replctl sandbox down'],
  options: [dirOption],
  load: () => import('../runs/sandbox-down.ts'),
}

export const sandboxStatus: CommandSpec = {
  name: 'sandbox status',
  args: [],
  summary: 'the throw-away cluster as observed now',
  description: 'As "replctl status", with the folder, the inventory and the URLs.',
  examples: ['replctl sandbox status'],
  options: [dirOption],
  load: () => import('../runs/sandbox-status.ts'),
}
