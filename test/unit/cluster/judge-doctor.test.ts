import { describe, expect, it } from 'vitest'
import { type DoctorCheck, hasFailed } from '../../../src/cluster/doctor-check.ts'
import type { ExaminedNode, HostProbe, Reach } from '../../../src/cluster/doctor-facts.ts'
import type { NodeFacts } from '../../../src/cluster/facts.ts'
import type { NodeSettings } from '../../../src/cluster/inventory.ts'
import { judgeAlike, judgeReach } from '../../../src/cluster/judge-between-hosts.ts'
import { judgeHost } from '../../../src/cluster/judge-host.ts'
import type { Room } from '../../../src/cluster/room.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { emptyNode, inventoryOf, postmaster, runningNode, standbyNode } from '../some-cluster.ts'

const binaries = (version: string) => ({
  directory: `/usr/lib/postgresql/${version.split('.')[0]}/bin`,
  major: Number(version.split('.')[0]),
  minor: Number(version.split('.')[1]),
  version,
})

const healthy: HostProbe = {
  loginUser: 'postgres',
  clockOffsetMs: 0,
  clockDoubtMs: 5,
  missingPrograms: [],
  missingTools: [],
  locales: ['C', 'C.utf8', 'POSIX'],
  place: { path: '/var/lib/postgresql', isWritable: true },
  hasLostFound: false,
  noState: null,
  rooms: [{ path: '/d/pg_wal', mountPoint: '/d', freeBytes: 2 ** 34 }],
  listener: null,
  forwards: null,
  rootRefusal: null,
  service: 'pg_ctlcluster 15 main',
  guard: null,
}

it('a host that answers and takes too long to be tried is busy, not unreachable', () => {
  const [settings] = inventoryOf(['pg1']).nodes
  const probeError = new ReplctlError('timeout', 'command on pg1 took too long')
  const checks = judgeHost({ settings: settings!, facts: emptyNode('pg1'), probe: null, probeError }, null)
  expect(checks.map((one) => `${one.check} ${hasFailed(one)}`)).toEqual(['ssh false', 'host true'])
  expect(checks[1]?.problem).toMatchObject({ code: 'timeout', node: 'pg1' })
})

const built: Partial<NodeFacts> = {
  mark: {
    ...{ cluster: 'shop', node: 'pg1', dataDirectory: '/d', systemIdentifier: '1', inode: '1' },
    phase: 'done',
  },
}

function examined(
  name: string,
  {
    probe = {},
    facts = {},
    settings = {},
  }: {
    probe?: Partial<HostProbe> | null
    facts?: Partial<NodeFacts>
    settings?: Partial<NodeSettings>
  } = {},
): ExaminedNode {
  const node = inventoryOf([name], { [name]: settings }).nodes[0]!
  const own = facts.binaries ?? binaries('15.18')
  const changes = { freeBytes: 100 * 2 ** 30, ...facts, binaries: own, installed: facts.installed ?? [own] }
  return {
    settings: node,
    facts: emptyNode(name, changes),
    probe: probe === null ? null : { ...healthy, ...probe },
  }
}

/** e.g. `port port-in-use`, `disk (disk-full)`: a warning in parentheses. */
const told = (checks: readonly DoctorCheck[]): string[] =>
  checks.flatMap((one) => {
    if (one.problem === null) return []
    return [`${one.check} ${hasFailed(one) ? one.problem.code : `(${one.problem.code})`}`]
  })

describe('one host by itself', () => {
  it.each<[string, Parameters<typeof examined>[1], string[]]>([
    ['a healthy one', {}, []],
    ['pg_rewind is missing', { probe: { missingPrograms: ['pg_rewind'] } }, ['programs (binaries-missing)']],
    ['psql is missing', { probe: { missingPrograms: ['psql', 'pg_rewind'] } }, ['programs binaries-missing']],
    ['flock is missing', { probe: { missingTools: ['flock'] } }, ['tools (binaries-missing)']],
    ['awk is missing', { probe: { missingTools: ['awk'] } }, ['tools binaries-missing']],
    ['no place for its state', { probe: { noState: '/home/postgres' } }, ['tools remote-command-failed']],
    ['little space', { facts: { freeBytes: 100_000_000 } }, ['disk (disk-full)']],
    ['no space: the next segments of WAL do not fit', { facts: { freeBytes: 0 } }, ['disk disk-full']],
    [
      'little space for WAL alone',
      { probe: { rooms: [{ path: '/wal', mountPoint: '/wal', freeBytes: 100_000_000 }] } },
      ['disk (disk-full)'],
    ],
    [
      'no space for WAL',
      { probe: { rooms: [{ path: '/wal', mountPoint: '/wal', freeBytes: 10_000_000 }] } },
      ['disk disk-full'],
    ],
    [
      'an instance that runs and refuses our SQL',
      {
        facts: {
          ...{ ...built, isStartGuarded: true, dataDirectoryState: 'instance', dataMajor: 15 },
          postmaster: postmaster(),
          instanceError: new ReplctlError(
            'sql-failed',
            'the server refused a statement: no pg_hba.conf entry',
          ),
        },
      },
      ['sql sql-failed'],
    ],
    [
      'an instance that is stopped',
      {
        facts: {
          ...{ ...built, isStartGuarded: true, dataDirectoryState: 'instance', dataMajor: 15 },
          postmaster: postmaster({ isAlive: false }),
        },
      },
      [],
    ],
    [
      'a data_dir with lost+found',
      { probe: { hasLostFound: true }, facts: { dataDirectoryState: 'empty' } },
      ['data-directory foreign-data-directory'],
    ],
    [
      'no place',
      { probe: { place: { path: '/srv', isWritable: false } } },
      ['data-directory foreign-data-directory'],
    ],
    [
      'other files',
      { facts: { dataDirectoryState: 'not-an-instance' } },
      ['data-directory foreign-data-directory'],
    ],
    [
      'a foreign instance',
      { facts: { dataDirectoryState: 'instance', dataMajor: 15 } },
      ['data-directory foreign-data-directory'],
    ],
    ['a taken port', { probe: { listener: { dataDirectory: null } } }, ['port port-in-use']],
    ['sshd without forwarding', { probe: { forwards: false } }, ['forwarding (remote-command-failed)']],
    ['nothing starts it', { probe: { service: 'pg_ctl' } }, ['service (start-guard-missing)']],
    [
      'a service that does not run the start guard, on a node that is built',
      { facts: { ...built, hasGuardScript: true }, probe: { guard: { works: true, said: '' } } },
      ['start-guard (start-guard-missing)'],
    ],
    ['built by an older replctl', { facts: built }, ['start-guard (start-guard-missing)']],
    [
      'a start guard that cannot ask',
      {
        facts: { ...built, hasGuardScript: true, isStartGuarded: true },
        probe: { guard: { works: false, said: 'there is no psql' } },
      },
      ['start-guard (start-guard-missing)'],
    ],
    [
      'a service that runs the start guard',
      {
        facts: { ...built, hasGuardScript: true, isStartGuarded: true },
        probe: { guard: { works: true, said: 'pg2 is a standby' } },
      },
      [],
    ],
    ['systemd without root', { probe: { rootRefusal: 'no sudo' } }, ['sudo sudo-refused']],
  ])('%s', (_, node, expected) => {
    expect(told(judgeHost(examined('pg1', node), null))).toEqual(expected)
  })

  it.each<[string, Partial<NodeFacts>, string]>([
    [
      'a primary',
      { instance: runningNode('pg1', {}).instance },
      'After a reboot: replctl init primary pg1. Or let',
    ],
    [
      'a standby',
      { instance: standbyNode('pg1', '0/3000000').instance },
      'After a reboot: replctl add-standby pg1. Or let',
    ],
    ['a primary that is stopped', { dataDirectoryState: 'instance' }, 'replctl init primary pg1. Or let'],
    [
      'a standby that is stopped',
      { dataDirectoryState: 'instance', hasStandbySignal: true },
      'replctl add-standby pg1. Or let',
    ],
  ])('says how %s without a service is started after a reboot', (_, facts, expected) => {
    const node = examined('pg1', { facts, probe: { service: 'pg_ctl' } })
    const service = judgeHost(node, null).find((one) => one.check === 'service')
    expect(service?.problem?.hint).toContain(expected)
  })

  it('says how to drop the cluster that installing PostgreSQL made', () => {
    const node = examined('pg1', { probe: { listener: { dataDirectory: '/var/lib/postgresql/15/main' } } })
    const port = judgeHost(node, null).find((one) => one.check === 'port')
    expect(port?.problem?.hint).toContain('pg_dropcluster --stop 15 main')
  })

  it('a host that cannot be reached is told once, as SSH or as sudo', () => {
    const gone = (code: 'host-unreachable' | 'sudo-refused') =>
      examined('pg1', { probe: null, facts: { unreachable: new ReplctlError(code, 'no') } })
    expect(told(judgeHost(gone('host-unreachable'), null))).toEqual(['ssh host-unreachable'])
    expect(told(judgeHost(gone('sudo-refused'), null))).toEqual(['sudo sudo-refused'])
  })
})

describe('what has to be the same everywhere', () => {
  const needs = (locales: string[], rooms: readonly Room[] = []) => ({
    name: 'pg1',
    needs: { size: { dataBytes: 2 ** 30, tablespaces: [] }, locales },
    rooms: new Map([['pg2', rooms]]),
  })
  const pg1 = examined('pg1')
  const of = (other: Parameters<typeof examined>[1], primary: Parameters<typeof judgeAlike>[2] = null) =>
    told(judgeAlike([pg1, examined('pg2', other)], ['pg2'], primary))

  it.each<[string, Parameters<typeof examined>[1], string[]]>([
    ['the same', {}, []],
    ['another major version', { facts: { binaries: binaries('16.2') } }, ['version version-mismatch']],
    ['an older minor version', { facts: { binaries: binaries('15.4') } }, ['version (minor-version-older)']],
    [
      'two majors side by side',
      { facts: { binaries: binaries('16.2'), installed: [binaries('15.18'), binaries('16.2')] } },
      [],
    ],
    ['no C.UTF-8', { probe: { locales: ['C', 'POSIX', 'en_US.utf8'] } }, ['locale locale-missing']],
    ['a clock 3 s ahead', { probe: { clockOffsetMs: 3_000 } }, ['clock (clock-skew)']],
    [
      'a clock 3 s ahead as far as a slow link can tell',
      { probe: { clockOffsetMs: 3_000, clockDoubtMs: 1_500 } },
      [],
    ],
  ])('%s', (_, node, expected) => {
    expect(of(node)).toEqual(expected)
  })

  it("the primary's major version counts, not what the inventory says of one node", () => {
    const both = { binaries: binaries('16.2'), installed: [binaries('15.18'), binaries('16.2')] }
    const { postgres } = inventoryOf(['pg2']).nodes[0]!
    const wishing = (version: number) => ({ facts: both, settings: { postgres: { ...postgres, version } } })
    const [check] = judgeAlike([pg1, examined('pg2', wishing(16))], ['pg2'], null)
    expect(check?.problem).toMatchObject({
      code: 'version-mismatch',
      message: 'pg2 is to have PostgreSQL 16, and pg1 has 15',
    })
    expect(of(wishing(15))).toEqual([])
  })

  it('a version that the inventory gives to all is what an empty first node will have', () => {
    const both = { binaries: binaries('16.2'), installed: [binaries('15.18'), binaries('16.2')] }
    const { postgres } = inventoryOf(['pg2']).nodes[0]!
    const wish = { facts: both, settings: { postgres: { ...postgres, version: 15 } } }
    const nodes = [examined('pg1', wish), examined('pg2', wish)]
    expect(told(judgeAlike(nodes, ['pg1', 'pg2'], null))).toEqual([])
  })

  it('before there is a primary, hosts for PostgreSQL 17 and newer need no locale of the C library', () => {
    const [have, lack] = [{ locales: ['C', 'C.utf8', 'POSIX'] }, { locales: ['C', 'POSIX'] }]
    const { postgres } = inventoryOf(['pg2']).nodes[0]!
    const locales = (version: string, wish?: number) => {
      const facts = { binaries: binaries(version), installed: [binaries(version), binaries('17.2')] }
      const settings = wish === undefined ? {} : { settings: { postgres: { ...postgres, version: wish } } }
      const nodes = [
        examined('pg1', { facts, probe: have, ...settings }),
        examined('pg2', { facts, probe: lack, ...settings }),
      ]
      return told(judgeAlike(nodes, ['pg1', 'pg2'], null).filter((one) => one.check === 'locale'))
    }
    expect(locales('17.2')).toEqual([])
    expect(locales('18.1')).toEqual([])
    expect(locales('16.2', 17)).toEqual([])
    expect(locales('16.2')).toEqual(['locale locale-missing'])
    expect(locales('17.2', 16)).toEqual(['locale locale-missing'])
    // The databases of one that is there may be of any provider.
    expect(of({ probe: lack, facts: { binaries: binaries('17.2') } }, needs(['C.UTF-8']))).toContain(
      'locale locale-missing',
    )
  })

  it('the primary says which locales and how much room', () => {
    expect(of({ probe: { locales: ['C.utf8'] } }, needs(['de_DE.UTF-8']))).toEqual(['locale locale-missing'])
    expect(of({ probe: { locales: ['de_DE.utf8'] } }, needs(['de_DE.UTF-8']))).toEqual([])
    const room = (freeBytes: number) => [{ paths: ['/srv/ts'], neededBytes: 2 ** 30, freeBytes }]
    expect(of({}, needs([], room(2 ** 29)))).toEqual(['room disk-full'])
    expect(of({}, needs([], room(2 ** 31)))).toEqual([])
    expect(of({ facts: { dataDirectoryState: 'instance' } }, needs([], room(2 ** 29)))).toEqual([])
  })

  it('of three clocks the one that is off is told', () => {
    const nodes = [pg1, examined('pg2'), examined('pg3', { probe: { clockOffsetMs: -9_000 } })]
    const clocks = judgeAlike(nodes, ['pg1', 'pg2', 'pg3'], null).filter((one) => one.problem !== null)
    expect(clocks.map((one) => one.node)).toEqual(['pg3'])
  })
})

describe('who reaches whom', () => {
  const reach = (changes: Partial<Reach>): Reach => ({
    ...{
      from: 'pg2',
      to: 'pg1',
      address: '10.0.0.11',
      port: 5432,
      isLogin: false,
      outcome: 'answers',
      said: '',
    },
    ...changes,
  })
  it.each<[string, Partial<Reach>, boolean, boolean]>([
    ['a login works', { isLogin: true, outcome: 'logged-in' }, true, true],
    ['a login is rejected', { isLogin: true, outcome: 'rejected' }, true, false],
    ['without a password it answers all the same', { outcome: 'rejected' }, true, true],
    ['something else than PostgreSQL answers', { outcome: 'answers' }, true, false],
    ['there is no psql to try it with', { outcome: 'no-psql' }, true, false],
    ['nothing listens yet', { outcome: 'refused' }, false, true],
    ['nothing listens although it runs', { outcome: 'refused' }, true, false],
    ['a firewall', { outcome: 'silent' }, false, false],
    ['a name that is none', { outcome: 'unresolved' }, false, false],
  ])('%s', (_, changes, isRunning, isFine) => {
    expect(hasFailed(judgeReach(reach(changes), isRunning))).toBe(!isFine)
  })
})
