import * as z from 'zod'
import { supportedMajorVersions } from '../postgres/versions.ts'
import {
  absolutePathField,
  ageField,
  clusterNameField,
  durationField,
  hbaLineField,
  hostField,
  lineField,
  localPathField,
  nodeNameField,
  parameterNameField,
  parameterValueField,
  portField,
  roleField,
  sizeField,
  sizeTextField,
  userField,
} from './fields.ts'
import { compressions, replicationModes, serviceKinds } from './inventory.ts'

/** Own commands for the instance's service. */
export const serviceSchema = z.strictObject({
  start: lineField().meta({ description: 'Command that starts the instance.' }),
  stop: lineField().meta({ description: 'Command that stops the instance.' }),
  restart: lineField()
    .optional()
    .meta({ description: 'Command that restarts it. Default: stop, then start.' }),
  reload: lineField()
    .optional()
    .meta({ description: 'Command that reloads its configuration. Default: pg_ctl reload.' }),
})

/** The keys of `postgres`, which a node may override. */
export const postgresSchema = z.strictObject({
  version: z
    .int()
    .min(supportedMajorVersions[0])
    .max(99)
    .optional()
    .meta({ description: 'Major version, e.g. 15. Default: detected.' }),
  bin_dir: absolutePathField().optional().meta({
    description: 'Folder of initdb, pg_ctl and the others on the node. Default: detected.',
  }),
  data_dir: absolutePathField().optional().meta({ description: 'Data directory on the node.' }),
  port: portField().optional().meta({ description: 'Port the instance listens on. Default: 5432.' }),
  os_user: userField().optional().meta({ description: 'OS user that owns the instance. Default: postgres.' }),
  database: lineField().optional().meta({
    description: 'Database replctl connects to and verifies replication in. Default: postgres.',
  }),
  service: z
    .union([z.enum(serviceKinds), serviceSchema], {
      error: `expected one of ${serviceKinds.join(', ')}, or a map of commands`,
    })
    .optional()
    .meta({ description: 'How the instance is started and stopped. Default: auto (detected).' }),
  parameters: z.record(parameterNameField(), parameterValueField()).optional().meta({
    description: 'PostgreSQL parameters, rendered into the configuration. A node adds to and overrides them.',
  }),
  hba: z.array(hbaLineField()).optional().meta({
    description: 'Further lines of pg_hba.conf, for clients. A node adds its own.',
  }),
})

/** The keys of `ssh`, which a node may override. */
export const sshSchema = z.strictObject({
  user: userField().optional().meta({
    description:
      'User to log in as: the PostgreSQL OS user, root, or one with password-less sudo. Default: as ~/.ssh/config says, else os_user.',
  }),
  port: portField()
    .optional()
    .meta({ description: 'Port of sshd. Default: as ~/.ssh/config says, else 22.' }),
  identity_file: localPathField().optional().meta({
    description: 'Private key. Default: ssh-agent and what ~/.ssh/config says.',
  }),
  config_file: localPathField()
    .optional()
    .meta({ description: 'OpenSSH client configuration. Default: ~/.ssh/config.' }),
  known_hosts: localPathField()
    .optional()
    .meta({ description: 'Known host keys. Default: ~/.ssh/known_hosts.' }),
  host_key_policy: z.enum(['strict', 'accept-new']).optional().meta({
    description: 'What happens with an unknown host key. A changed key is always refused. Default: strict.',
  }),
  connect_timeout: durationField('s')
    .refine((durationMs) => durationMs > 0, 'must be longer than 0')
    .optional()
    .meta({
      description: 'How long to wait for a connection, e.g. 5s. A plain number counts seconds. Default: 5s.',
    }),
})

/** The keys of `replication`. */
export const replicationSchema = z.strictObject({
  user: roleField().optional().meta({ description: 'Role that standbys log in as. Default: replicator.' }),
  password_file: localPathField().optional().meta({
    description:
      "File on the control host with that role's password. $REPLCTL_REPLICATION_PASSWORD goes first. Default: a password is generated.",
  }),
  mode: z.enum(replicationModes).optional().meta({
    description:
      'async: commits do not wait; sync: the first sync_standbys by priority confirm; quorum: any sync_standbys confirm. Default: async.',
  }),
  sync_standbys: z.int().min(1).optional().meta({
    description: 'How many standbys must confirm a commit (sync, quorum). Default: 1.',
  }),
  slots: z
    .boolean()
    .optional()
    .meta({ description: 'Keep WAL for standbys by replication slots. Default: true.' }),
  max_slot_wal_keep_size: sizeTextField().optional().meta({
    description: 'Most WAL that slots may hold back on the primary, e.g. 10GB; -1: no limit. Default: 10GB.',
  }),
  max_candidate_lag: sizeField().optional().meta({
    description: 'A switchover to a standby further behind than this is refused, e.g. 16MB. Default: 16MB.',
  }),
})

/** The keys of `archive`. */
export const archiveSchema = z.strictObject({
  host: hostField().meta({ description: "A node's name, or a host of its own." }),
  address: hostField().optional().meta({ description: 'What nodes use to reach it. Default: host.' }),
  user: userField()
    .optional()
    .meta({ description: 'OS user that owns the archive there. Default: os_user.' }),
  port: portField().optional().meta({ description: 'Port of sshd there. Default: 22.' }),
  dir: absolutePathField().meta({ description: 'Folder of the archive on that host.' }),
  mode: z.enum(['push', 'stream']).optional().meta({
    description: 'push: archive_command over SSH; stream: pg_receivewal on the archive host. Default: push.',
  }),
  synchronous: z.boolean().optional().meta({
    description:
      'mode: stream only: in sync and quorum mode the archive confirms commits as a standby does, as one of sync_standbys. Default: false.',
  }),
  compression: z
    .enum(compressions)
    .optional()
    .meta({ description: 'How segments are compressed. Default: auto.' }),
  max_backup_age: ageField().optional().meta({
    description:
      'status finds a problem when the newest verified backup is older than this, e.g. 25h. Default: no limit.',
  }),
  ssh: sshSchema.optional().meta({ description: 'How replctl logs into it, where that differs from ssh.' }),
})

/** The keys of a node: its own, and any of `postgres`. */
export const nodeSchema = z.strictObject({
  host: hostField().meta({ description: 'What replctl logs into by SSH; local: this machine, without SSH.' }),
  address: hostField().optional().meta({ description: 'What other nodes use to reach it. Default: host.' }),
  upstream: z.string().optional().meta({ description: 'Node to receive WAL from. Default: the primary.' }),
  delay: durationField()
    .optional()
    .meta({ description: 'How far replay stays behind on purpose, e.g. 1h. Default: 0.' }),
  priority: z.int().optional().meta({
    description: 'Among candidates with equally much WAL the larger one is promoted. Default: 0.',
  }),
  promotable: z
    .boolean()
    .optional()
    .meta({ description: 'Whether it may become the primary. Default: true.' }),
  state_dir: absolutePathField().optional().meta({
    description:
      "Where replctl keeps its files on the node. Default: .replctl/<cluster> in the OS user's home.",
  }),
  ...postgresSchema.shape,
  postgres: postgresSchema.optional().meta({ description: 'The same keys as directly in the node.' }),
  ssh: sshSchema.optional().meta({ description: 'How this node is logged into, where it differs from ssh.' }),
})

/** The keys of `hooks`. */
export const hooksSchema = z.strictObject({
  on_event: lineField().optional().meta({
    description:
      'Command on the control host, given one JSON event on standard input. Its failure is a warning.',
  }),
})

/** The keys of `fence`. */
export const fenceSchema = z.strictObject({
  command: lineField().meta({
    description:
      'Command on the control host that makes sure {node} on {host} is off. Exit 0: it is off or cannot write.',
  }),
})

/** The inventory, replctl.yaml, as it is written. What refers from one place to another is checked elsewhere. */
export const inventorySchema = z.strictObject({
  cluster: clusterNameField().meta({
    description: 'Name of the cluster; goes into cluster_name, slot names and application_name.',
  }),
  postgres: postgresSchema
    .optional()
    .meta({ description: 'PostgreSQL on all nodes; a node may override each key.' }),
  ssh: sshSchema.optional().meta({ description: 'How nodes are logged into; a node may override each key.' }),
  replication: replicationSchema.optional().meta({ description: 'How WAL gets from node to node.' }),
  archive: archiveSchema.optional().meta({ description: 'Where WAL and base backups are kept.' }),
  nodes: z
    .record(nodeNameField(), nodeSchema)
    .check((context) => {
      if (Object.keys(context.value).length > 0) return
      const hint = 'Add one, e.g. pg1: { host: 10.0.0.11 }'
      context.issues.push({
        code: 'custom',
        input: context.value,
        message: 'at least one node is needed',
        params: { hint },
      })
    })
    .meta({
      minProperties: 1,
      description: 'The nodes by name. Which of them is the primary is observed, never written down.',
    }),
  hooks: hooksSchema.optional().meta({ description: 'Commands to run when something happens.' }),
  fence: fenceSchema.optional().meta({
    description: 'How to be sure that an old primary which cannot be reached is off.',
  }),
})

/** The inventory as it was written, types checked and units read. */
export type InventoryFile = z.output<typeof inventorySchema>
export type NodeFile = z.output<typeof nodeSchema>
export type PostgresFile = z.output<typeof postgresSchema>
export type SshFile = z.output<typeof sshSchema>
export type ArchiveFile = z.output<typeof archiveSchema>

const sections: Readonly<Record<string, { readonly shape: object }>> = {
  postgres: postgresSchema,
  ssh: sshSchema,
  replication: replicationSchema,
  archive: archiveSchema,
  hooks: hooksSchema,
  fence: fenceSchema,
  service: serviceSchema,
}

/** Keys that may stand in the map at a path, e.g. `['nodes', 'pg2', 'ssh']`. */
export function keysAllowedAt(path: readonly PropertyKey[]): readonly string[] {
  if (path.length === 0) return Object.keys(inventorySchema.shape)
  if (path.length === 2 && path[0] === 'nodes') return Object.keys(nodeSchema.shape)
  return Object.keys(sections[String(path.at(-1))]?.shape ?? {})
}

/** Sections at the top of the file that have this key. */
export function sectionsWithKey(key: string): readonly string[] {
  return Object.keys(inventorySchema.shape).filter((name) => Object.hasOwn(sections[name]?.shape ?? {}, key))
}
