import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { openToControlHost, WriterWatch } from '../kit/observe.ts'
import { runProcess } from '../kit/run-process.ts'
import { TestCluster } from '../kit/test-cluster.ts'
import { TestHosts } from '../kit/test-hosts.ts'
import { type Fault, type FaultName, faults, smallVolume } from './faults.ts'
import { Ledger, ledgerTable } from './ledger.ts'
import { Operator } from './operator.ts'
import { type Random, seededRandom } from './random.ts'
import { readSalvagedIds } from './salvaged.ts'
import { judge, type Verdict } from './verdict.ts'

export interface TortureOptions {
  readonly seed: number
  /** It ends after the round in which this time is over, */
  readonly minutes?: number
  /** or after so many rounds. */
  readonly rounds?: number
  readonly mode?: 'async' | 'sync' | 'quorum'
  /** Only these faults; default: all. */
  readonly only?: readonly FaultName[]
  readonly log: (line: string) => void
}

export interface TortureResult {
  readonly verdict: Verdict
  /** Times when two nodes accepted writes together, and all else that must not be. */
  readonly complaints: readonly string[]
  readonly rounds: number
  readonly commands: number
}

/**
 * Clients write numbered rows and keep a ledger of what was confirmed, while a random, seeded schedule of faults and operator commands
 * runs. At the end the ledger is compared with the surviving primary and the salvages. The faults and the commands come from the seed
 * alone; how they meet in time does not.
 */
export async function torture(options: TortureOptions): Promise<TortureResult> {
  const { seed, mode = 'async' } = options
  const startedAt = performance.now()
  const log = (line: string) =>
    options.log(`${((performance.now() - startedAt) / 1000).toFixed(1).padStart(7)} s  ${line}`)
  // A volume in memory would not survive a power cut, and its rows would be lost by no fault of anybody.
  const hasDisks = (await runProcess('losetup', ['--find'])).exitCode === 0
  if (!hasDisks) log('no loop devices here: no disk gets full')
  const names = ['pg1', 'pg2', 'pg3']
  const logins = ['postgres', 'admin', 'root'] as const
  const hosts = await TestHosts.create({
    hosts: names.map((name, index) => ({
      name,
      login: logins[index] ?? 'postgres',
      ...(hasDisks ? { smallDisk: { path: smallVolume, sizeMb: 1200 } } : {}),
    })),
  })
  const folder = mkdtempSync(join(hosts.directory, 'torture-'))
  const fenceList = join(folder, 'off')
  writeFileSync(fenceList, '')
  try {
    const cluster = await TestCluster.create(hosts, { inventory: inventoryFor(mode, fenceList) })
    await cluster.init()
    await cluster.addStandbys()
    await cluster.server('pg1').sql(ledgerTable)
    const operator = new Operator(cluster, log)
    const watch = new WriterWatch(hosts)
    const ledger = new Ledger(hosts, { clients: 3, everyMs: 15 })
    const complaints: string[] = []
    const rounds = await playRounds(
      { hosts, cluster, operator, ledger, fenceList, hasDisks, log },
      options,
    ).catch((error: Error) => {
      complaints.push(error.message)
      return 0
    })
    const entries = await ledger.stop()
    complaints.push(...(await watch.stop()))
    const verify = await operator.call('verify')
    if (verify.exitCode !== 0) complaints.push(`verify: exit ${verify.exitCode}`)
    const primary = await operator.primary()
    if (primary === null) complaints.push('there is no primary at the end')
    const rows = primary === null ? [] : await cluster.server(primary).sql('SELECT id FROM ledger')
    const salvaged = new Set<number>()
    for (const name of names) for (const id of await readSalvagedIds(hosts, name)) salvaged.add(id)
    const onPrimary = new Set(rows.map(({ id }) => Number(id)))
    return {
      verdict: judge({ entries, onPrimary, salvaged, mode }),
      complaints,
      rounds,
      commands: operator.history.length,
    }
  } finally {
    await hosts.destroy()
    rmSync(folder, { recursive: true, force: true })
    log(`seed ${seed} is over`)
  }
}

interface Stage {
  readonly hosts: TestHosts
  readonly cluster: TestCluster
  readonly operator: Operator
  readonly ledger: Ledger
  readonly fenceList: string
  readonly hasDisks: boolean
  readonly log: (line: string) => void
}

/** The fence command is an honest one: it says yes only for a host whose power is off. */
function inventoryFor(mode: 'async' | 'sync' | 'quorum', fenceList: string) {
  return {
    ...openToControlHost,
    replication: { mode, sync_standbys: 1 },
    fence: { command: `grep -qx {node} '${fenceList}'` },
    ssh: { connect_timeout: '5s' },
  }
}

async function playRounds(stage: Stage, { seed, minutes, rounds, only }: TortureOptions): Promise<number> {
  const random = seededRandom(seed)
  const { hasDisks } = stage
  const isPossible = (name: FaultName) => name !== 'full-disk' || hasDisks
  const chosen = faults.filter(({ name }) => (only?.includes(name) ?? true) && isPossible(name))
  const deadline = Date.now() + (minutes ?? 60) * 60_000
  let played = 0
  while (Date.now() < deadline && played < (rounds ?? Number.POSITIVE_INFINITY)) {
    played += 1
    stage.log(`--- round ${played}`)
    await playRound(stage, random, random.pick(chosen))
  }
  return played
}

/** Something breaks; the operator types something, perhaps at the wrong moment; it heals; the operator mends. */
async function playRound(stage: Stage, random: Random, fault: Fault): Promise<void> {
  const { hosts, cluster, operator, ledger, fenceList, log } = stage
  const primary = await operator.primary()
  if (primary === null) throw new Error('a round begins without a primary')
  const standbys = hosts.names.filter((name) => name !== primary)
  const before = ledger.confirmed.length
  const struck = await fault.strike({ hosts, cluster, primary, standbys, random })
  log(struck.what)
  writeFileSync(
    fenceList,
    hosts.names
      .filter((name) => !hosts.isOn(name))
      .map((name) => `${name}\n`)
      .join(''),
  )
  await pause(random.between(0, 1500))
  await typeSomething(operator, random, primary, standbys, fault.name)
  writeFileSync(fenceList, '')
  await struck.heal()
  await operator.mend(240_000)
  log(`mended; ${ledger.confirmed.length - before} rows were confirmed in this round`)
}

/** What an operator may type in such a moment, sensible or not; sometimes replctl is killed in the middle of it. */
async function typeSomething(
  operator: Operator,
  random: Random,
  primary: string,
  standbys: readonly string[],
  fault: FaultName,
): Promise<void> {
  const isPrimaryGone = ['kill-primary', 'power-off-primary', 'freeze-primary', 'full-disk'].includes(fault)
  const standby = random.pick(standbys)
  const choices: readonly (readonly string[])[] = isPrimaryGone
    ? [['promote'], ['promote', standby]]
    : fault === 'partition-primary'
      ? [
          ['promote', standby],
          ['promote', standby, '--allow-split-brain', '--allow-data-loss'],
          ['switchover', standby],
        ]
      : [['switchover', standby], ['switchover'], ['promote'], ['rejoin', standby], ['rejoin', primary]]
  const args = random.pick(choices)
  const isKilled = random.chance(0.35)
  const n = random.between(4, 140)
  if (isKilled) await operator.callAndKill(args, { kind: 'message', n: n * 4 })
  else await operator.call(...args)
}
