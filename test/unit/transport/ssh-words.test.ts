import { describe, expect, test } from 'vitest'
import { createOutlet } from '../../../src/transport/outlet.ts'
import { parseConfigLine } from '../../../src/transport/ssh-config-files.ts'
import { authRefused, connectTimedOut, hostUnreachable } from '../../../src/transport/ssh-errors.ts'
import { parseJump, splitFiles } from '../../../src/transport/ssh-route.ts'
import { expandSshTokens } from '../../../src/transport/ssh-tokens.ts'
import { someHop } from './some-hop.ts'

describe('words of ssh_config', () => {
  test.each([
    ['bastion', { host: 'bastion', user: undefined, port: undefined }],
    ['me@bastion:2222', { host: 'bastion', user: 'me', port: 2222 }],
    ['me@corp@bastion', { host: 'bastion', user: 'me@corp', port: undefined }],
    ['[2001:db8::1]:22', { host: '2001:db8::1', user: undefined, port: 22 }],
    ['2001:db8::1', { host: '2001:db8::1', user: undefined, port: undefined }],
    ['ssh://me@bastion:2222/', { host: 'bastion', user: 'me', port: 2222 }],
  ])('jump %s', (text, expected) => {
    expect(parseJump(text)).toEqual(expected)
  })

  test.each([
    ['HostName db1', ['hostname', 'db1']],
    ['  Port=22 ', ['port', '22']],
    ['\tUser = "a b"', ['user', '"a b"']],
    ['# comment', ['', '']],
    ['', ['', '']],
  ])('line %j', (line, expected) => {
    expect(parseConfigLine(line)).toEqual(expected)
  })

  test.each([
    ['/a/known /b/kh2', ['/a/known', '/b/kh2']],
    ['/tmp/a b/known /root/.ssh/kh2', ['/tmp/a b/known', '/root/.ssh/kh2']],
    ['~/.ssh/known %d/kh "/c d/kh"', ['~/.ssh/known', '%d/kh', '"/c d/kh"']],
    ['/tmp/a b/known none', ['/tmp/a b/known', 'none']],
    ['none', ['none']],
  ])('files %s', (text, expected) => {
    expect(splitFiles(text)).toEqual(expected)
  })

  // biome-ignore-start lint/suspicious/noTemplateCurlyInString: ssh_config's own
  test.each([
    ['%h.example.org', 'db1.example.org'],
    ['100%% %x', '100% %x'],
    ['${HOME}/.ssh/${NONE}', '/home/me/.ssh/${NONE}'],
  ])('tokens %s', (text, expected) => {
    expect(expandSshTokens(text, { h: 'db1' }, { HOME: '/home/me' })).toBe(expected)
  })
  // biome-ignore-end lint/suspicious/noTemplateCurlyInString: ssh_config's own
})

const hop = someHop
const errno = (code: string): Error => Object.assign(new Error(`connect ${code}`), { code })

describe('a host that cannot be reached', () => {
  test.each([
    [errno('ECONNREFUSED'), 'pg1 is 10.0.0.11:2222: connection refused: nothing listens there.'],
    [errno('EHOSTUNREACH'), 'pg1 is 10.0.0.11:2222: no route to the host.'],
    [errno('ENOTFOUND'), 'pg1 is 10.0.0.11:2222: its name is not found.'],
    [
      new AggregateError([errno('ECONNREFUSED')]),
      'pg1 is 10.0.0.11:2222: connection refused: nothing listens there.',
    ],
    [new Error('odd'), 'pg1 is 10.0.0.11:2222: odd.'],
  ])('%s', (cause, detail) => {
    expect(hostUnreachable(hop, cause)).toMatchObject({
      code: 'host-unreachable',
      exitCode: 4,
      message: 'could not connect to pg1',
      detail,
    })
  })

  test('in time says what took so long', () => {
    expect(connectTimedOut({ ...hop, host: '10.0.0.11' }, 5000, 'logging in').detail).toBe(
      '10.0.0.11:2222: timed out after 5 s while logging in.',
    )
  })
})

test('a refused login lists what was tried, what was not, and for whom', () => {
  const attempts = [
    { label: '~/.ssh/id (SHA256:x)', prepare: async () => undefined },
    { label: '/k/locked', prepare: async () => undefined },
  ]
  const plan = { attempts, skipped: ['/k/locked: encrypted, and $REPLCTL_SSH_PASSPHRASE does not open it'] }
  expect(authRefused(hop, plan, ['password', 'keyboard-interactive'])).toMatchObject({
    message: 'login as "postgres" on pg1 refused',
    detail:
      'Refused: ~/.ssh/id (SHA256:x). Not tried: /k/locked: encrypted, and $REPLCTL_SSH_PASSPHRASE does not open it. No ssh-agent was asked. The host takes only: password, keyboard-interactive.',
    hint: expect.stringContaining('ssh -p 2222 postgres@10.0.0.11'),
  })
})

describe('the output of a long-lived command', () => {
  test('waits for its first listener, and characters for their last byte', () => {
    const outlet = createOutlet()
    const euro = Buffer.from('€')
    outlet.push(Buffer.from('a'))
    outlet.push(euro.subarray(0, 1))
    const seen: string[] = []
    outlet.listen((text) => seen.push(text))
    outlet.push(euro.subarray(1))
    expect(seen).toEqual(['a', '€'])
  })

  test('nobody listens to is not kept for ever', () => {
    const outlet = createOutlet()
    for (let n = 0; n < 30; n++) outlet.push(Buffer.alloc(100_000, 'x'))
    let length = 0
    outlet.listen((text) => {
      length += text.length
    })
    expect(length).toBe(1_000_000)
  })
})
