import type { TestCluster } from '../kit/test-cluster.ts'
import type { TestHosts } from '../kit/test-hosts.ts'
import type { Random } from './random.ts'

/** Where faults happen. */
export interface Target {
  readonly hosts: TestHosts
  readonly cluster: TestCluster
  readonly primary: string
  readonly standbys: readonly string[]
  readonly random: Random
}

/** Something that goes wrong. What it breaks for good (a killed server) is for the operator to mend, the rest heals. */
export interface Fault {
  readonly name: FaultName
  /** What was broken, for the history: `pg1's host is off`. */
  strike(target: Target): Promise<Struck>
}

export interface Struck {
  readonly what: string
  /** Puts back what no operator command could: power, cables, disk space, frozen processes. */
  heal(): Promise<void>
}

export const faultNames = [
  'none',
  'kill-primary',
  'kill-standby',
  'power-off-primary',
  'power-off-standby',
  'partition-primary',
  'partition-standby',
  'cut-off-control',
  'freeze-primary',
  'slow-link',
  'full-disk',
] as const
export type FaultName = (typeof faultNames)[number]

/** The folder that `full-disk` fills: its hosts have a small volume there, with the data directory on it. */
export const smallVolume = '/var/lib/postgresql/15'

const nothing = async () => undefined

const strikes: Readonly<Record<FaultName, Fault['strike']>> = {
  none: async () => ({ what: 'nothing', heal: nothing }),
  'kill-primary': async ({ cluster, primary }) => {
    await cluster.server(primary).kill9()
    return { what: `PostgreSQL on the primary ${primary} was killed`, heal: nothing }
  },
  'kill-standby': async ({ cluster, standbys, random }) => {
    const standby = random.pick(standbys)
    await cluster.server(standby).kill9()
    return { what: `PostgreSQL on the standby ${standby} was killed`, heal: nothing }
  },
  'power-off-primary': async ({ hosts, primary }) => {
    await hosts.powerOff(primary)
    return { what: `the host of the primary ${primary} lost its power`, heal: () => hosts.powerOn(primary) }
  },
  'power-off-standby': async ({ hosts, standbys, random }) => {
    const standby = random.pick(standbys)
    await hosts.powerOff(standby)
    return { what: `the host of the standby ${standby} lost its power`, heal: () => hosts.powerOn(standby) }
  },
  // Clients still write on it, and no standby hears of it.
  'partition-primary': async ({ hosts, primary, standbys }) => {
    for (const standby of standbys) await hosts.cutLink(primary, standby)
    return {
      what: `the primary ${primary} was cut off from the standbys`,
      heal: () => hosts.restoreLink(primary),
    }
  },
  'partition-standby': async ({ hosts, primary, standbys, random }) => {
    const standby = random.pick(standbys)
    await hosts.cutLink(standby, primary)
    return {
      what: `the standby ${standby} was cut off from the primary`,
      heal: () => hosts.restoreLink(standby),
    }
  },
  'cut-off-control': async ({ hosts, primary }) => {
    await hosts.cutLink(primary, 'control', { port: 22 })
    return {
      what: `the control host cannot log in to the primary ${primary}`,
      heal: () => hosts.restoreLink(primary),
    }
  },
  'freeze-primary': async ({ hosts, primary }) => {
    await signalAll(hosts, primary, 'STOP')
    return { what: `the primary ${primary} is frozen`, heal: () => signalAll(hosts, primary, 'CONT') }
  },
  'slow-link': async ({ hosts, standbys, random }) => {
    const standby = random.pick(standbys)
    await hosts.limitLink(standby, '2mbit')
    return {
      what: `the link of the standby ${standby} is slow`,
      heal: () => hosts.limitLink(standby, undefined),
    }
  },
  'full-disk': async ({ hosts, primary, standbys, random }) => {
    const node = random.chance(0.6) ? primary : random.pick(standbys)
    await hosts.fillDisk(node, smallVolume)
    return { what: `the disk of ${node} is full`, heal: () => hosts.freeDisk(node, smallVolume) }
  },
}

export const faults: readonly Fault[] = faultNames.map((name) => ({ name, strike: strikes[name] }))

/** To all processes of PostgreSQL on a host; some may end meanwhile. */
async function signalAll(hosts: TestHosts, host: string, signal: 'STOP' | 'CONT'): Promise<void> {
  const script = `for pid in $(pgrep -x postgres); do kill -s ${signal} "$pid" 2>/dev/null; done; :`
  await hosts.exec(host, script)
}
