import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { program } from '../../../src/command.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { createNode, type Node } from '../../../src/node/node.ts'
import type { SqlSession } from '../../../src/node/sql-session.ts'
import { readHostFacts, recentFacts, surveyNode, surveyNodes } from '../../../src/node/survey.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import { inventoryOf } from '../some-cluster.ts'

/** What the facts script printed of a real PostgreSQL 15; test/fixtures/host-facts/capture.sh made it. */
const captured = (name: string) =>
  readFileSync(new URL(`../../fixtures/host-facts/${name}.txt`, import.meta.url), 'utf8')

const { nodes } = inventoryOf(['pg1', 'pg2'])
const [settings] = nodes
const nodeWith = (postgres: Partial<Node['settings']['postgres']> = {}): Node =>
  createNode(
    { ...settings!, postgres: { ...settings!.postgres, ...postgres } },
    'shop',
    createRecordingTransport(),
  )
const read = (output: string, node = nodeWith()) => readHostFacts(node, output, 1_795_230_293_000)

/** A section as the script prints it. */
const section = (name: string, text: string) => `@@${name}\n${text}\n\n@@\n`

describe('what the facts script prints is read', () => {
  test('of a running instance with everything around it', () => {
    const facts = read(captured('running'))
    expect(facts).toMatchObject({
      name: 'pg1',
      unreachable: null,
      hostName: 'db1',
      home: '/var/lib/postgresql',
      clockOffsetMs: 273,
      dataDirectoryState: 'instance',
      dataDirectoryInode: '2573955',
      configDirectory: '/var/lib/postgresql/15/shop',
      dataMajor: 15,
      freeBytes: 76466744 * 1024,
      postmaster: {
        pid: 5745,
        isAlive: true,
        isFrozen: false,
        port: 5432,
        socketDirectory: '/var/run/postgresql',
        status: 'ready',
      },
      hasStandbySignal: true,
      hasRewindInProgress: true,
      hasPassfile: true,
      recoveryConf: '',
      standbyConf: "primary_conninfo = 'host=10.0.0.11 user=replicator'",
      mark: { cluster: 'shop', node: 'pg1', inode: '5', phase: 'done' },
      record: { primary: 'pg2', members: ['pg1', 'pg2'], generation: 4 },
      fence: { newPrimary: 'pg2', timeline: 2 },
      journal: '{"version":1,"command":"promote","wish":{"note":"@@"},"begun":[]}',
      holder: '{"user":"dba","pid":7}',
      instance: null,
    })
    expect(facts.control).toMatchObject({
      systemIdentifier: '7710455385034597009',
      state: 'in production',
      timeline: 1,
    })
    const packaged = { directory: '/usr/lib/postgresql/15/bin', major: 15, minor: 18, version: '15.18' }
    expect(facts.installed).toEqual([packaged])
    expect(facts.binaries).toEqual(packaged)
  })

  test('of a pg_wal that is on another disk', () => {
    const disk = (text: string) => read(section('disk', text))
    const head = 'Filesystem     1024-blocks     Used Available Capacity Mounted on'
    const [data, wal] = ['/dev/vda 264212084 29924168 76466744 29% /', 'tmpfs 262144 262144 0 100% /wal']
    expect(disk(`${head}\n${data}\n${wal}`)).toMatchObject({ freeBytes: 76466744 * 1024, walFreeBytes: 0 })
    expect(disk(`${head}\n${data}`)).toMatchObject({ freeBytes: 76466744 * 1024, walFreeBytes: null })
    expect(disk('')).toMatchObject({ freeBytes: null, walFreeBytes: null })
  })

  test('of a frozen postmaster', () => {
    expect(read(captured('frozen')).postmaster).toMatchObject({ isAlive: true, isFrozen: true })
  })

  test('of an instance that was killed', () => {
    expect(read(captured('stopped'))).toMatchObject({
      dataDirectoryState: 'instance',
      hasStandbySignal: false,
      control: { state: 'in production' },
    })
    expect(read(captured('stopped')).postmaster?.isAlive ?? false).toBe(false)
  })

  test.each([
    ['missing', 'missing', ''],
    ['empty', 'empty', '2573938'],
    ['other', 'not-an-instance', '2573942'],
  ])('of a data directory that is %s (lost+found does not count)', (name, state, inode) => {
    expect(read(captured(name))).toMatchObject({
      dataDirectoryState: state,
      dataDirectoryInode: inode,
      dataMajor: null,
      control: null,
      postmaster: null,
      mark: null,
      journal: null,
      holder: null,
      standbyConf: '',
      autoConf: '',
    })
  })

  test('in full, although what does not change within a command is asked once only', () => {
    const node = nodeWith()
    const { hostName, installed, clockOffsetMs, freeBytes } = read(captured('running'), node)
    node.known = { hostName, installed, clockOffsetMs, freeBytes }
    expect(read(captured('frozen'), node)).toMatchObject({
      hostName: 'db1',
      installed,
      clockOffsetMs: 273,
      freeBytes,
    })
  })
})

describe('odd answers', () => {
  test('nothing at all is a host of which nothing is known', () => {
    expect(read('')).toMatchObject({
      dataDirectoryState: 'missing',
      configDirectory: '/var/lib/postgresql/15/shop',
      freeBytes: null,
      binaries: null,
      clockOffsetMs: 0,
      postmaster: null,
    })
  })

  test('files of ours that were cut off or emptied count as missing', () => {
    const output = ['mark', 'record', 'fence'].map((name) => section(name, '{"cluster":"sh')).join('')
    expect(read(output)).toMatchObject({ mark: null, record: null, fence: null })
  })

  test('a postmaster.pid that is empty or cut off', () => {
    expect(read(section('postmaster', '')).postmaster).toBeNull()
    expect(read(section('postmaster', '4711\n/data\n')).postmaster).toMatchObject({
      pid: 4711,
      isAlive: false,
      port: null,
      socketDirectory: null,
      status: '',
    })
  })

  test('pg_controldata that cannot read the file of another version', () => {
    expect(
      read(
        section(
          'control',
          'pg_control version number: 1002\nWARNING: Calculated CRC checksum does not match',
        ),
      ).control,
    ).toBeNull()
  })

  test('a clock without milliseconds (macOS, busybox) is not compared', () => {
    expect(read(section('clock', '17952302933N')).clockOffsetMs).toBe(0)
  })

  test.each([
    ["standby_mode = 'on'", true],
    ['standby_mode=on', true],
    ["  standby_mode 'true'", true],
    ["standby_mode = 'off'", false],
    ["#standby_mode = 'on'", false],
    ['', false],
  ])('recovery.conf with %j says whether it is a standby', (text, isStandby) => {
    expect(read(section('recovery-conf', text)).hasStandbySignal).toBe(isStandby)
  })

  test('a file with letters of its own keeps its inner line breaks', () => {
    const text = "# größe\n\nprimary_conninfo = 'host=a'"
    expect(read(section('standby-conf', text)).standbyConf).toBe(text)
  })
})

describe('programs', () => {
  const installed = section(
    'installed',
    [
      '/usr/lib/postgresql/13/bin\tpostgres (PostgreSQL) 13.21',
      '/usr/lib/postgresql/17/bin\tpostgres (PostgreSQL) 17.5 (Debian 17.5-1.pgdg120+1)',
      '/usr/lib/postgresql/15/bin\tpostgres (PostgreSQL) 15.18',
      '/opt/broken/bin\t',
      '/opt/other/bin\tpostgres: error while loading shared libraries',
    ].join('\n'),
  )

  test('are those of the data directory’s version', () => {
    const facts = read(section('version', '13') + installed)
    expect(facts.binaries?.directory).toBe('/usr/lib/postgresql/13/bin')
    expect(facts.installed.map((one) => one.version)).toEqual(['13.21', '17.5', '15.18'])
  })

  test('an empty cluster of Debian’s is of the version that it is registered with', () => {
    const ofConfig = (directory: string) => read(section('config', directory) + installed).binaries?.version
    expect(ofConfig('/etc/postgresql/15/main')).toBe('15.18')
    expect(ofConfig('/var/lib/postgresql/15/main')).toBe('17.5')
  })

  test('are not those of a release before 10 that was left there', () => {
    const old = section(
      'installed',
      '/usr/lib/postgresql/9.6/bin\tpostgres (PostgreSQL) 9.6.24\n/usr/lib/postgresql/15/bin\tpostgres (PostgreSQL) 15.18',
    )
    expect(read(old).installed.map((one) => one.version)).toEqual(['15.18'])
  })

  test('without one, those of the inventory’s version, else the newest', () => {
    expect(read(installed, nodeWith({ version: 15 })).binaries?.major).toBe(15)
    expect(read(installed).binaries?.major).toBe(17)
  })

  test('are none where the version is not installed', () => {
    expect(read(section('version', '16') + installed).binaries).toBeNull()
    expect(read(installed, nodeWith({ version: 14 })).binaries).toBeNull()
  })
})

describe('a survey', () => {
  const empty = captured('empty')

  test('only reads, in one round trip, and asks less the second time', async () => {
    const transport = createRecordingTransport().answer('look at the host', empty)
    const node = createNode(settings!, 'shop', transport)
    await surveyNode(node)
    await surveyNode(node)
    const looks = transport.calls.filter(({ method }) => method === 'run')
    expect(looks.map(({ command }) => command?.args)).toEqual([
      ['.replctl/shop', '/var/lib/postgresql/15/shop', '', ''],
      ['.replctl/shop', '/var/lib/postgresql/15/shop', '', 'quick'],
    ])
  })

  test('a host that cannot be reached is a fact of that node, and does not disturb the others', async () => {
    const down = createRecordingTransport().answer(/./, new ReplctlError('host-unreachable', 'no route'))
    const survey = await surveyNodes([
      createNode(nodes[0]!, 'shop', down),
      createNode(nodes[1]!, 'shop', createRecordingTransport().answer(/./, empty)),
    ])
    expect(survey[0]?.unreachable).toMatchObject({ code: 'host-unreachable', node: 'pg1' })
    expect(survey[1]).toMatchObject({ name: 'pg2', unreachable: null, dataDirectoryState: 'empty' })
  })

  test('an instance that runs and does not answer SQL is told with the reason', async () => {
    const refused = new ReplctlError('not-answering', 'the instance closed the session')
    const transport = createRecordingTransport({ socketPeerIsOsUser: false })
      .answer('look at the host', captured('running'))
      .answerStart(/psql/, (process) => process.exit(2))
    const facts = await surveyNode(createNode(settings!, 'shop', transport))
    expect(facts).toMatchObject({ instance: null, instanceError: { code: refused.code, node: 'pg1' } })
  })

  test.each(['missing', 'empty', 'other', 'stopped'])(
    'tells what answers where nothing runs in the data directory (%s)',
    async (name) => {
      const nothing = {
        receiver: null,
        archiver: null,
        current_lsn: null,
        receive_lsn: null,
        replay_lsn: null,
      }
      const lists = { replication: [], slots: [], settings: {}, tablespaces: [], ...nothing }
      const document = { version: 150018, system_identifier: '7412', in_recovery: false, ...lists }
      const transport = createRecordingTransport({ socketPeerIsOsUser: false }).answer(
        'look at the host',
        captured(name),
      )
      const node = createNode(settings!, 'shop', transport)
      const sql = { isOpen: true, json: async () => document } as unknown as SqlSession
      node.openSql = async () => ({ sql, endpoint: 'wherever the data directory says' })
      expect((await surveyNode(node)).strayInstance).toMatchObject({
        systemIdentifier: '7412',
        isInRecovery: false,
      })
    },
  )

  describe('that is a moment old', () => {
    const counted = () => {
      const transport = createRecordingTransport().answer(/./, empty)
      const node = createNode(settings!, 'shop', transport)
      const looks = () =>
        transport.calls.filter(({ command }) => command?.title === 'look at the host').length
      return { node, looks }
    }
    const check = { notBefore: 0, mustBeQuiet: false }

    test('serves checks, until a step has changed something', async () => {
      const { node, looks } = counted()
      await surveyNode(node)
      await recentFacts(node, check)
      expect(looks()).toBe(1)
      node.lastSurvey = null
      await recentFacts(node, check)
      expect(looks()).toBe(2)
      node.lastSurvey = { at: performance.now() - 1_001, activity: 0, facts: surveyNode(node) }
      await recentFacts(node, check)
      expect(looks()).toBe(4)
    })

    test('serves a step that changes something only while nothing at all was done, and once', async () => {
      const { node, looks } = counted()
      await surveyNode(node)
      await recentFacts(node, { notBefore: 0, mustBeQuiet: true })
      expect(looks()).toBe(1)
      await recentFacts(node, { notBefore: performance.now(), mustBeQuiet: true })
      expect(looks()).toBe(2)
      await node.read(program('cat', ['x']))
      await recentFacts(node, { notBefore: 0, mustBeQuiet: true })
      expect(looks()).toBe(2)
      await node.run(program('touch', ['x']))
      await recentFacts(node, { notBefore: 0, mustBeQuiet: true })
      expect(looks()).toBe(3)
    })

    test('is not what was being gathered when something was done on another node', async () => {
      const activity = { count: 0 }
      const transport = createRecordingTransport().answer(/./, empty)
      const [one, other] = nodes.map((of) => createNode(of, 'shop', transport, activity))
      const early = surveyNode(one!)
      const shared = recentFacts(one!, { notBefore: 0, mustBeQuiet: true })
      const done = other!.run(program('touch', ['x']))
      const anew = recentFacts(one!, { notBefore: 0, mustBeQuiet: true })
      expect(await shared).toBe(await early)
      expect(await anew).not.toBe(await early)
      await done
    })
  })
})
