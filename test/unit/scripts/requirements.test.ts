import { expect, test } from 'vitest'

const { newServices, needs, whyStillMissing } = await import(
  new URL('../../../scripts/lib/requirements.mjs', import.meta.url).href
)
const need = (program: string) =>
  needs.tests.find(({ programs }: { programs: readonly string[] }) => programs.includes(program))

test.each([
  [['initdb'], ['postgresql']],
  [
    ['sshd', 'nft'],
    ['ssh', 'nftables'],
  ],
  [
    ['initdb', 'sshd'],
    ['postgresql', 'ssh'],
  ],
  [['fish', 'mkfs.ext4'], []],
  [[], []],
])('of %j these services would start at the next boot: %j', (programs, services) => {
  expect(newServices(programs.map(need), () => false)).toEqual(services)
})

test('a service that was there before is not named', () => {
  expect(newServices([need('sshd'), need('nft')], (name: string) => name === 'ssh')).toEqual(['nftables'])
})

test('a failed installation is not told as one that worked', () => {
  expect(whyStillMissing(['initdb'], false)).toBe('could not be installed, see above: initdb')
  expect(whyStillMissing(['initdb'], true)).toBe('installed, but still not found: initdb')
})
