import { describe, expect, test } from 'vitest'
import {
  type HostKeySubject,
  judgeHostKey,
  keyUnknown,
  lookupName,
  preferKnownTypes,
} from '../../../src/transport/host-key-check.ts'
import { matchesHostPatterns } from '../../../src/transport/host-pattern.ts'
import {
  fingerprintOf,
  isAboutHost,
  keyTypeOf,
  knownHostLine,
  knownHostName,
  parseKnownHosts,
} from '../../../src/transport/known-hosts.ts'

/** A key in wire format: its type, then anything. */
function keyOf(type: string, rest: string): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(type.length)
  return Buffer.concat([length, Buffer.from(type), Buffer.from(rest)])
}

const ed25519 = keyOf('ssh-ed25519', 'one')
const otherEd25519 = keyOf('ssh-ed25519', 'two')
const rsa = keyOf('ssh-rsa', 'three')
const lineOf = (hosts: string, key: Buffer): string =>
  `${hosts} ${keyTypeOf(key)} ${key.toString('base64')}\n`
const subject: HostKeySubject = {
  host: 'db1',
  lookupHost: 'db1.example.org',
  port: 22,
  isAlias: false,
  learnInto: '/home/me/.ssh/known_hosts',
}

describe('host patterns', () => {
  test.each([
    ['db1', ['db1'], true],
    ['db1', ['db2'], false],
    ['db1', ['db?'], true],
    ['db10', ['db?'], false],
    ['db1.example.org', ['*.example.org'], true],
    ['dbx1xexamplexorg', ['*.example.org'], false],
    ['db3.example.org', ['*.example.org', '!db3.*'], false],
    ['db3.example.org', ['!db3.*', '*'], false],
    ['db1', ['!db2'], false],
    ['[db1]:2222', ['[db1]:2222'], true],
    ['[db1]:2222', ['[db*]:22??'], true],
    ['[db1]:2222', ['db1'], false],
    ['db1', ['DB1'], true],
    ['db1', [''], false],
  ])('%s is matched by %j: %s', (host, patterns, expected) => {
    expect(matchesHostPatterns(host, patterns)).toBe(expected)
  })
})

describe('known_hosts', () => {
  test('is read line by line, and what is no entry is passed over', () => {
    const text = `# comment\n\n  db1,db2\tssh-rsa AAAA comment here\n@revoked * ssh-rsa BBBB\n@cert-authority *.org ssh-rsa CCCC\n@strange db1 ssh-rsa DDDD\nbroken line\n`
    expect(parseKnownHosts('f', text)).toEqual([
      { file: 'f', line: 3, marker: undefined, hosts: 'db1,db2', type: 'ssh-rsa', key: 'AAAA' },
      { file: 'f', line: 4, marker: 'revoked', hosts: '*', type: 'ssh-rsa', key: 'BBBB' },
      { file: 'f', line: 5, marker: 'cert-authority', hosts: '*.org', type: 'ssh-rsa', key: 'CCCC' },
    ])
  })

  test('names a host by its address in lower case, and by its port where it is not 22', () => {
    expect(knownHostName('DB1', 22)).toBe('db1')
    expect(knownHostName('db1', 2222)).toBe('[db1]:2222')
    expect(knownHostName('::1', 22)).toBe('::1')
  })

  test('a line written is a line read, hashed or not', () => {
    for (const salt of [undefined, Buffer.from('01234567890123456789')]) {
      const [line] = parseKnownHosts('f', knownHostLine('[db1]:2222', ed25519, salt))
      expect(isAboutHost(line!, '[db1]:2222')).toBe(true)
      expect(isAboutHost(line!, 'db1')).toBe(false)
      expect(line).toMatchObject({ type: 'ssh-ed25519', key: ed25519.toString('base64') })
    }
  })

  test('a hashed line that ssh-keygen -H wrote is understood', () => {
    const hashed =
      '|1|3a3/9JtzSLAQxVzqJQ6Gv5by6Yo=|k/rAzDDszP2E1Ec8nSHhJSo474Y= ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVfI4KoxbnvTxl2UNwa4fs5kkAgGeE+8Oak+8cvL5Vy'
    expect(parseKnownHosts('f', hashed).map((line) => isAboutHost(line, 'db1.example.org'))).toEqual([true])
    expect(parseKnownHosts('f', hashed).map((line) => isAboutHost(line, 'db2.example.org'))).toEqual([false])
  })

  test('a fingerprint looks as ssh-keygen prints it', () => {
    expect(fingerprintOf(ed25519)).toMatch(/^SHA256:[\w+/]{43}$/)
    expect(keyTypeOf(Buffer.alloc(0))).toBe('')
  })
})

describe("judging a host's key", () => {
  const judge = (text: string, key = ed25519, who = subject) => {
    const verdict = judgeHostKey(who, key, parseKnownHosts('/kh', text))
    return verdict.is === 'refused' ? verdict.error.code : verdict.is
  }
  const name = 'db1.example.org'

  test.each<readonly [string, string, string]>([
    ['the same key', lineOf(name, ed25519), 'known'],
    [
      'the same key among others',
      lineOf(name, rsa) + lineOf(name, otherEd25519) + lineOf(name, ed25519),
      'known',
    ],
    ['no line', '', 'new'],
    ['only other hosts', lineOf('db2', ed25519), 'new'],
    ['another key', lineOf(name, otherEd25519), 'host-key-changed'],
    ['a key of another type', lineOf(name, rsa), 'host-key-changed'],
    ['the key revoked', lineOf(name, ed25519) + lineOf('@revoked *', ed25519), 'host-key-revoked'],
    ['another key revoked', lineOf(name, ed25519) + lineOf('@revoked *', otherEd25519), 'known'],
    ['revoked for another host', lineOf(name, ed25519) + lineOf('@revoked db9', ed25519), 'known'],
    ['only a certificate authority', lineOf('@cert-authority *', otherEd25519), 'new'],
    ['an authority with the very key', lineOf('@cert-authority *', ed25519), 'new'],
  ])('%s', (_name, text, expected) => {
    expect(judge(text)).toBe(expected)
  })

  test('on a port of its own the bare name may vouch for it, but not accuse it', () => {
    const who = { ...subject, port: 2222 }
    expect(lookupName(who)).toBe(`[${name}]:2222`)
    expect(judge(lineOf(`[${name}]:2222`, ed25519), ed25519, who)).toBe('known')
    expect(judge(lineOf(name, ed25519), ed25519, who)).toBe('known')
    expect(judge(lineOf(name, otherEd25519), ed25519, who)).toBe('new')
    expect(judge(lineOf(`@revoked ${name}`, ed25519), ed25519, who)).toBe('host-key-revoked')
    expect(judge(lineOf(`[${name}]:2222`, otherEd25519) + lineOf(name, rsa), ed25519, who)).toBe(
      'host-key-changed',
    )
  })

  test('an alias is looked up alone, without the port', () => {
    const who = { ...subject, lookupHost: 'Shop-DB', port: 2222, isAlias: true }
    expect(lookupName(who)).toBe('shop-db')
    expect(judge(lineOf('shop-db', ed25519), ed25519, who)).toBe('known')
    expect(judge(lineOf(name, otherEd25519), ed25519, who)).toBe('new')
  })

  test('a change names the file, the line and both fingerprints', () => {
    const verdict = judgeHostKey(subject, ed25519, parseKnownHosts('/kh', `\n${lineOf(name, otherEd25519)}`))
    expect(verdict).toMatchObject({
      error: {
        message: 'host key of db1 has changed',
        detail: `/kh:2 has ssh-ed25519 ${fingerprintOf(otherEd25519)}, the host offers ssh-ed25519 ${fingerprintOf(ed25519)}. Someone may be in between.`,
        hint: expect.stringContaining(`ssh-keygen -R '${name}' -f /kh`),
      },
    })
  })

  test('an unknown key names its fingerprint and the command that adds it', () => {
    const error = keyUnknown(
      { ...subject, port: 2222 },
      rsa,
      parseKnownHosts('/kh', lineOf('@cert-authority *', rsa)),
    )
    expect(error.detail).toContain(`ssh-rsa ${fingerprintOf(rsa)}`)
    expect(error.detail).toContain('/kh:1 trusts a certificate authority')
    expect(error.hint).toContain(`ssh-keyscan -p 2222 ${name} >> /home/me/.ssh/known_hosts`)
  })

  test('the types that are known are asked for first', () => {
    const asked = (text: string) => preferKnownTypes(subject, parseKnownHosts('/kh', text))
    expect(asked('')[0]).toBe('ssh-ed25519')
    expect(asked(lineOf(name, rsa)).slice(0, 2)).toEqual(['rsa-sha2-512', 'rsa-sha2-256'])
    expect(asked(lineOf(name, keyOf('ecdsa-sha2-nistp256', 'x')))[0]).toBe('ecdsa-sha2-nistp256')
    expect(asked(lineOf('@cert-authority *', rsa))[0]).toBe('ssh-ed25519')
    expect(asked(lineOf(name, rsa))).toHaveLength(asked('').length)
  })
})
