import { expect, test } from 'vitest'
import { unfinishedOf } from '../../../../src/cli/runs/backup.ts'
import { backupJobOf } from '../../../../src/steps/archive-backup.ts'
import { someCatalog, systemIdentifier } from '../../some-backup.ts'

const begun = { incoming: [{ id: '20261126T040000Z', request: null, isFresh: true }] }
const ours = someCatalog([], begun)
const namesake = someCatalog([], { ...begun, systemIdentifier: '7' })
const never = async () => {
  throw new Error('nobody had to be asked')
}

test('what another cluster of the same name has begun is not gone on with: its job and its folder are its own', async () => {
  const identify = async () => systemIdentifier
  expect(await unfinishedOf([namesake, ours], identify)).toEqual([ours])
  expect(await unfinishedOf([namesake, someCatalog([])], identify)).toEqual([])
  expect(backupJobOf('7')).not.toBe(backupJobOf(systemIdentifier))
})

test('the nodes are asked only where it matters, and where none answers what was begun is gone on with', async () => {
  expect(await unfinishedOf([ours], never)).toEqual([ours])
  expect(await unfinishedOf([someCatalog([]), someCatalog([])], never)).toEqual([])
  expect(await unfinishedOf([namesake, ours], async () => null)).toEqual([namesake, ours])
})
