import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { renderGuardDropIn, renderStartGuard } from '../../../src/postgres/start-guard.ts'

const template = (name: string) =>
  readFileSync(new URL(`../../../templates/guard/${name}`, import.meta.url), 'utf8')
const values = {
  cluster: 'shop',
  node: 'pg1',
  stateDirectory: `/home/o'neil/.replctl/shop`,
  dataDirectory: '/var/lib/pgsql/15/data',
  binDirectory: '/usr/pgsql-15/bin',
}

test('the guard asks each of the other nodes, and no two at once wait for each other', () => {
  const others = ['pg2', 'pg3'].map((name) => ({ name, conninfo: `host=${name} user='a b'` }))
  const text = renderStartGuard(template('start-guard.sh'), { ...values, others })
  expect(text).toContain(`state='/home/o'\\''neil/.replctl/shop'\n`)
  expect(text).toContain('others=2\n')
  expect(text).toContain(`  ask 'pg2' 'host=pg2 user='\\''a b'\\''' &\n  ask 'pg3' `)
  const none = renderStartGuard(template('start-guard.sh'), { ...values, others: [] })
  expect(none).toContain('ask_all() {\n  wait\n}')
})

test('a path in a unit’s drop-in is one word to systemd, whatever it holds', () => {
  const odd = { ...values, stateDirectory: '/srv/a "b" %h $x \\y' }
  expect(renderGuardDropIn(template('systemd-drop-in.conf'), odd)).toContain(
    'ExecStartPre=/bin/sh "/srv/a \\"b\\" %%h $$x \\\\y/start-guard"\n',
  )
})
