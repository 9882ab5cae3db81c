import { expect, test } from 'vitest'
import type { Observation } from '../../../../src/cli/operation.ts'
import { undoBackup } from '../../../../src/cli/runs/backup.ts'
import { undoRestore } from '../../../../src/cli/runs/restore-undo.ts'
import { archiveHost, nodeName } from '../../../../src/cluster/names.ts'
import { begunSteps } from '../../../../src/engine/begun-steps.ts'
import { type Journal, parseJournal } from '../../../../src/engine/journal.ts'
import { createNode } from '../../../../src/node/node.ts'
import { fenceTitle } from '../../../../src/steps/fence-instance.ts'
import { createRecordingTransport } from '../../../../src/transport/recording-transport.ts'
import { someCatalog } from '../../some-backup.ts'
import { inventoryOf } from '../../some-cluster.ts'

const archive = { host: 'backup1', dir: '/archive', node: undefined } as never
const inventory = { ...inventoryOf(['pg1', 'pg2']), archive }
const session = { inventory, templates: {} as never }
const journalOf = (command: string, begun: readonly string[]): Journal =>
  parseJournal(JSON.stringify({ version: 1, command, wish: {}, begun, owed: begun }))!

test('a backup is taken back although its source is down, or no node of the inventory any more', () => {
  const begun = [
    'take a base backup of pg9 into the archive',
    'unpack the backup and verify it against its manifest',
  ]
  const request = { cluster: 'shop', source: 'pg9', parent: null } as never
  const catalog = someCatalog([], { incoming: [{ id: '20261126T040000Z', request, isFresh: true }] })
  // In the same second another cluster began one, in the same archive directory.
  const other = { cluster: 'crm', source: 'pg7', parent: null } as never
  const beside = someCatalog([], {
    systemIdentifier: '7',
    incoming: [{ id: '20261126T040000Z', request: other, isFresh: true }],
  })
  const { plan } = undoBackup(session, archive, [beside, catalog], { id: '20261126T040000Z', from: null })
  const journal = journalOf(
    'backup',
    begun.map((title) => `${archiveHost}: ${title}`),
  )
  const found = begunSteps(plan, journal, [nodeName('pg1')])
  expect([found.begun.map(({ title }) => title), found.missing, found.left]).toEqual([begun, null, []])
})

test.each([
  ['into a node', true],
  ['beside a node', false],
])(
  'a restore %s is taken back without the archive, its backup, or leave of who leads by now',
  async (_way, isMember) => {
    const begun = [
      ...(isMember ? [`pg2: ${fenceTitle('pg1')}`] : []),
      'pg1: make the data directory and mark it as our own',
      'pg1: fetch backup 20261126T010000Z from the archive and verify it',
      'pg1: recover it, alone, to the end of the archive, and open it',
      ...(isMember
        ? []
        : ['pg1: give it settings of its own (it archives nowhere and follows nobody), and start it']),
    ]
    const record = JSON.stringify({ backup: '20261126T010000Z', timeline: 1, phase: 'fetched' })
    const transport = createRecordingTransport().answer('look how far the restore is', record)
    const node = inventory.nodes[0]!
    const resumed = journalOf('restore', begun)
    const { plan } = await undoRestore(
      { ...session, hosts: new Map([[archiveHost, {} as never]]) },
      { survey: [], resumed } as unknown as Observation,
      { node, target: { kind: 'latest' }, isMember },
      createNode(node, 'shop', transport),
    )
    const found = begunSteps(plan, resumed, [])
    expect(found.begun.map(({ node: name, title }) => `${name}: ${title}`)).toEqual(begun)
    expect([found.missing, found.left]).toEqual([null, []])
  },
)
