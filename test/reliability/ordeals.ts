import { setTimeout as pause } from 'node:timers/promises'
import { emptyHosts, restoreHosts, saveHosts } from '../kit/empty-hosts.ts'
import { openToControlHost, writersNow } from '../kit/observe.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import type { TestHosts } from '../kit/test-hosts.ts'
import { type Entry, Ledger, ledgerTable } from './ledger.ts'
import { readSalvagedIds } from './salvaged.ts'

/** A command that is to be interrupted, the cluster it begins with, and what must be true when it is finished at last. */
export interface Ordeal {
  readonly name: OrdealName
  readonly args: readonly string[]
  /** Builds what is kept for `prepare`: once for all runs. */
  build(arena: Arena): Promise<void>
  /** Makes the cluster as it has to be before the command. */
  prepare(arena: Arena): Promise<void>
  /** Whether clients write while the command runs. */
  readonly isUnderWrites: boolean
  /** Who must be the primary in the end. */
  readonly primary: string
  readonly standbys: readonly string[]
  /** Problems that `status` may report in the end, as `node code`. */
  readonly known: readonly string[]
}

export const ordealNames = ['init', 'add-standby', 'promote', 'switchover', 'rejoin'] as const
export type OrdealName = (typeof ordealNames)[number]

/** The hosts and the cluster that all runs share. */
export interface Arena {
  readonly hosts: TestHosts
  readonly cluster: TestCluster
}

/** Makes an arena of three hosts that are logged into in the three ways there are. */
export async function makeArena(hosts: TestHosts): Promise<Arena> {
  return {
    hosts,
    cluster: await TestCluster.create(hosts, {
      inventory: { ...openToControlHost, ssh: { connect_timeout: '10s' } },
    }),
  }
}

const buildTrio = async ({ hosts, cluster }: Arena) => {
  await emptyHosts(hosts)
  await cluster.init()
  await cluster.addStandbys()
  await cluster
    .server('pg1')
    .sql(`${ledgerTable}; INSERT INTO ledger SELECT n, 0, 'old' FROM generate_series(1, 1000) n`)
  await allCaughtUp({ hosts, cluster }, 'pg1', ['pg2', 'pg3'])
  await saveHosts(hosts)
}

const restoreTrio = async (arena: Arena) => {
  await restoreHosts(arena.hosts)
  for (const name of ['pg2', 'pg3']) await streams(arena, name)
}

export const ordeals: Readonly<Record<OrdealName, Ordeal>> = {
  init: {
    name: 'init',
    args: ['init', 'primary', 'pg1'],
    build: async () => undefined,
    prepare: ({ hosts }) => emptyHosts(hosts),
    isUnderWrites: false,
    primary: 'pg1',
    standbys: [],
    known: ['pg2 node-not-built', 'pg3 node-not-built'],
  },
  'add-standby': {
    name: 'add-standby',
    args: ['add-standby', 'pg2', 'pg3'],
    build: async ({ hosts, cluster }) => {
      await emptyHosts(hosts)
      await cluster.init()
      await cluster
        .server('pg1')
        .sql(`${ledgerTable}; INSERT INTO ledger SELECT n, 0, 'old' FROM generate_series(1, 1000) n`)
      await saveHosts(hosts)
    },
    prepare: async ({ hosts, cluster }) => {
      await restoreHosts(hosts)
      await cluster.server('pg1').awaitAnswer()
    },
    isUnderWrites: true,
    primary: 'pg1',
    standbys: ['pg2', 'pg3'],
    known: [],
  },
  promote: {
    name: 'promote',
    args: ['promote', 'pg2'],
    build: buildTrio,
    prepare: async (arena) => {
      await restoreTrio(arena)
      await allCaughtUp(arena, 'pg1', ['pg2', 'pg3'])
      await arena.cluster.server('pg1').kill9()
    },
    isUnderWrites: false,
    primary: 'pg2',
    standbys: ['pg3'],
    known: ['pg1 node-fenced'],
  },
  switchover: {
    name: 'switchover',
    args: ['switchover', 'pg2'],
    build: buildTrio,
    prepare: restoreTrio,
    isUnderWrites: true,
    primary: 'pg2',
    standbys: ['pg1', 'pg3'],
    known: [],
  },
  rejoin: {
    name: 'rejoin',
    args: ['rejoin', 'pg1'],
    // pg1 confirmed rows that nobody else received, and died; pg2 took over.
    build: async (arena) => {
      const { hosts, cluster } = arena
      await buildTrio(arena)
      await allCaughtUp(arena, 'pg1', ['pg2', 'pg3'])
      for (const name of ['pg2', 'pg3']) await hosts.cutLink('pg1', name)
      // What a sender had handed to the network would still arrive once the link is back: it goes before the rows come.
      const senders = 'FROM pg_stat_replication'
      await cluster.server('pg1').sql(`SELECT pg_terminate_backend(pid) ${senders}`)
      await cluster.server('pg1').awaitSql(`SELECT count(*) = 0 ${senders}`)
      await cluster
        .server('pg1')
        .sql(`INSERT INTO ledger SELECT n, 9, 'only here' FROM generate_series(2001, 2050) n`)
      await cluster.server('pg1').kill9()
      await hosts.restoreLink('pg1')
      await cluster.succeed(['promote', 'pg2'])
      await saveHosts(hosts)
    },
    prepare: async (arena) => {
      await restoreHosts(arena.hosts)
      await streams(arena, 'pg3')
    },
    isUnderWrites: true,
    primary: 'pg2',
    standbys: ['pg1', 'pg3'],
    known: [],
  },
}

/** Rows that pg1 alone had, in the ordeal of `rejoin`. */
export const onlyOnOldPrimary = Array.from({ length: 50 }, (_, index) => 2001 + index)

async function streams({ cluster }: Arena, name: string): Promise<void> {
  await cluster
    .server(name)
    .awaitSql("SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
}

async function allCaughtUp({ cluster }: Arena, primary: string, standbys: readonly string[]): Promise<void> {
  for (const name of standbys) await cluster.server(name).awaitCatchup(cluster.server(primary))
}

/** Everything that is wrong with a cluster after an interrupted command was finished; nothing is the only good answer. */
export async function complaintsAbout(
  { hosts, cluster }: Arena,
  ordeal: Ordeal,
  entries: readonly Entry[],
): Promise<string[]> {
  const complaints: string[] = []
  const writers = await writersNow(hosts)
  if (writers.join() !== ordeal.primary)
    complaints.push(`writers: ${writers.join() || 'none'}, not ${ordeal.primary}`)
  const verify = await cluster.replctl(['verify', ...ordeal.standbys, '--json'])
  const isProved = ordeal.standbys.length === 0 || verify.exitCode === 0
  if (!isProved) complaints.push(`verify: exit ${verify.exitCode} ${JSON.stringify(verify.json?.problems)}`)
  const status = await cluster.replctl(['status', '--json'])
  const seen = (status.json?.problems ?? []).map(
    (one: { node: string; code: string }) => `${one.node} ${one.code}`,
  )
  if (seen.join() !== ordeal.known.join())
    complaints.push(`status: ${seen.join() || 'no problem'}; expected ${ordeal.known.join() || 'none'}`)
  complaints.push(...(await leftovers(hosts, ordeal)))
  if (writers.length === 1 && ordeal.name !== 'init') {
    complaints.push(...(await missingRows({ hosts, cluster }, ordeal, entries)))
  }
  return complaints
}

async function missingRows(
  { hosts, cluster }: Arena,
  ordeal: Ordeal,
  entries: readonly Entry[],
): Promise<string[]> {
  const rows = await cluster.server(ordeal.primary).sql('SELECT id FROM ledger')
  const ids = new Set(rows.map((row) => Number(row.id)))
  const lost = entries
    .filter((entry) => entry.outcome === 'confirmed' && !ids.has(entry.id))
    .map((entry) => entry.id)
  for (let id = 1; id <= 1000; id += 1) if (!ids.has(id)) lost.push(id)
  const complaints =
    lost.length === 0 ? [] : [`${lost.length} confirmed rows are lost: ${lost.slice(0, 5).join()} …`]
  if (ordeal.name !== 'rejoin') return complaints
  const salvaged = await readSalvagedIds(hosts, 'pg1')
  const unsaved = onlyOnOldPrimary.filter((id) => !salvaged.has(id))
  return unsaved.length === 0
    ? complaints
    : [...complaints, `${unsaved.length} rows of pg1 are in no salvage`]
}

/** Files and processes of an operation that should be over, and slots that nobody wants. */
async function leftovers(hosts: TestHosts, ordeal: Ordeal): Promise<string[]> {
  const script = `
cd ~postgres/.replctl/shop 2>/dev/null || exit 0
for file in journal holder beat rewinding job-* *.new *.tmp* adopt; do [ -e "$file" ] && echo "file $file"; done
ls -d ~postgres/15/shop.* 2>/dev/null | grep -v '[.]log$' | grep -v -- '-saved$'
[ ! -e lock ] || flock -n lock true || echo 'the cluster lock, which is held'
ps -e -o args= | grep -E '^[^ ]*(pg_basebackup|pg_rewind|pg_waldump)' | cut -c 1-120
:`
  const found = await Promise.all(
    hosts.names.map(async (name) => {
      const look = async () => (await hosts.exec(name, script)).stdout.split('\n').filter(Boolean)
      // What a killed command leaves running may take a moment to notice it.
      for (const deadline = Date.now() + 3_000; (await look()).length > 0 && Date.now() < deadline; )
        await pause(100)
      return (await look()).map((line) => `${name}: left over: ${line}`)
    }),
  )
  const query = [
    'psql',
    '-X',
    '-A',
    '-t',
    '-d',
    'postgres',
    '-c',
    'SELECT slot_name FROM pg_replication_slots ORDER BY 1',
  ]
  const run = await hosts.exec(ordeal.primary, query, { user: 'postgres', check: false })
  const slots = run.stdout.split('\n').filter(Boolean)
  const wanted = slotsWanted(ordeal)
  const isRight = slots.join() === wanted.join()
  return [
    ...found.flat(),
    ...(isRight ? [] : [`slots on ${ordeal.primary}: ${slots.join()}; expected ${wanted.join()}`]),
  ]
}

function slotsWanted(ordeal: Ordeal): readonly string[] {
  return ordeal.standbys.map((name) => `shop_${name}`).toSorted()
}

/** Clients that write while a command runs; without them, nothing is written. */
export function startWriting({ hosts }: Arena, ordeal: Ordeal): { stop(): Promise<readonly Entry[]> } {
  return ordeal.isUnderWrites ? new Ledger(hosts, { clients: 2 }) : { stop: async () => [] }
}
