import { Duplex } from 'node:stream'
import { afterEach, expect, test, vi } from 'vitest'
import { openPgSession } from '../../../src/node/pg-session.ts'
import { sqlStateOf } from '../../../src/node/sql-session.ts'
import { asConnectedSocket } from '../../../src/transport/unix-socket.ts'

const target = {
  socketPath: '/run/pg/.s.PGSQL.5433',
  socketDirectory: '/run/pg',
  port: 5433,
  user: 'postgres',
  database: 'shop',
  binDirectory: '/usr/lib/postgresql/15/bin',
}

/** AuthenticationOk, then ReadyForQuery. */
const welcome = Buffer.from('520000000800000000' + '5a0000000549', 'hex')

/** A server that welcomes everybody, and the first packet that it got. */
function server(answer = welcome) {
  const packets: Buffer[] = []
  const inner = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      packets.push(chunk)
      if (packets.length === 1) inner.push(answer)
      done()
    },
    final: (done) => done(),
  })
  return { socket: asConnectedSocket(inner), startup: () => startupOf(packets[0]!) }
}

/** The parameters of a startup packet: after length and protocol version, names and values that end with a zero byte. */
function startupOf(packet: Buffer): Record<string, string> {
  const words = packet.subarray(8).toString().split('\0')
  const pairs: Record<string, string> = {}
  for (let at = 0; words[at] !== ''; at += 2) pairs[words[at]!] = words[at + 1]!
  return pairs
}

afterEach(() => void vi.unstubAllEnvs())

test('a session begins the same whatever the PG* variables of the control host say', async () => {
  for (const [name, value] of Object.entries({
    PGOPTIONS: '-c default_transaction_read_only=on',
    PGREPLICATION: 'database',
    PGSSLNEGOTIATION: 'direct',
    PGSSLMODE: 'require',
    PGAPPNAME: 'nightly',
    PGFALLBACKAPPLICATIONNAME: 'nightly',
    PGCLIENT_ENCODING: 'LATIN1',
    PGCONNECT_TIMEOUT: '1',
    PGHOST: 'elsewhere',
    PGPORT: '1',
    PGUSER: 'somebody',
    PGDATABASE: 'other',
  })) {
    vi.stubEnv(name, value)
  }
  const { socket, startup } = server()
  const session = await openPgSession(socket, target)
  expect(session.isOpen).toBe(true)
  const { options, replication, ...rest } = startup()
  expect(rest).toEqual({
    user: 'postgres',
    database: 'shop',
    application_name: 'replctl',
    client_encoding: 'UTF8',
  })
  expect([options?.trim(), replication]).toEqual(['', 'false'])
  await session.close()
})

/** AuthenticationSASL with SCRAM-SHA-256, AuthenticationMD5Password and AuthenticationCleartextPassword. */
test.each([
  `52000000170000000a${Buffer.from('SCRAM-SHA-256\0\0').toString('hex')}`,
  '520000000c0000000501020304',
  '520000000800000003',
])('a password asked for on the local socket is a refused login (%s)', async (request) => {
  vi.stubEnv('PGPASSWORD', 'of another server')
  const { socket } = server(Buffer.from(request, 'hex'))
  const refusal = await openPgSession(socket, target).catch((error: unknown) => error)
  expect(refusal).toMatchObject({ code: 'sql-failed', exitCode: 3 })
  expect(sqlStateOf(refusal)).toBe('28P01')
})
