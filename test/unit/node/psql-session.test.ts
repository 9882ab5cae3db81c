import { afterEach, describe, expect, test, vi } from 'vitest'
import { openPsqlSession } from '../../../src/node/psql-session.ts'
import { sqlStateOf } from '../../../src/node/sql-session.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'
import type { ScriptedProcess } from '../../../src/transport/scripted-process.ts'

const target = {
  socketPath: '/run/pg/.s.PGSQL.5433',
  socketDirectory: '/run/pg',
  port: 5433,
  user: 'postgres',
  database: 'postgres',
  binDirectory: '/usr/lib/postgresql/15/bin',
}

/** What psql prints for a statement: its rows as they come, and what :ERROR, :SQLSTATE and the message are. */
interface Said {
  readonly rows?: string
  readonly error?: readonly [sqlState: string, message: string]
}

/** A psql that answers each statement with `answer`, and cuts what it prints into pieces of `size`. */
function psql(answer: (sql: string) => Said | undefined, size = 10_000) {
  const statements: string[] = []
  let process: ScriptedProcess | undefined
  const transport = createRecordingTransport().answerStart(/psql/, (given) => {
    process = given
    let lines: string[] = []
    given.onLine((line) => {
      const [, word] = /^\\echo '(\w+)' :ERROR :SQLSTATE :LAST_ERROR_MESSAGE '\w+'$/.exec(line) ?? []
      if (word === undefined) {
        lines.push(line)
        return
      }
      const sql = lines.join('\n').replace(/\n;$/, '')
      lines = []
      statements.push(sql)
      const said = answer(sql)
      if (said === undefined) return
      const [sqlState, message] = said.error ?? ['00000', '']
      const text = `${said.rows ?? ''}${word} ${said.error === undefined ? 'false' : 'true'} ${sqlState} ${message} ${word}\n`
      for (let at = 0; at < text.length; at += size) given.print(text.slice(at, at + size))
    })
  })
  const session = openPsqlSession(transport, target)
  return { transport, statements, session, process: () => process! }
}

afterEach(() => void vi.useRealTimers())

test('runs psql without the user’s own settings, on the socket, and never asks for a password', async () => {
  const { transport, session } = psql(() => ({}))
  await session
  const { command } = transport.calls[0]!
  expect(command?.args[0]).toBe('/usr/lib/postgresql/15/bin/psql')
  expect(command?.args).toEqual(
    expect.arrayContaining(['-X', '-w', '-h', '/run/pg', '-p', '5433', '-U', 'postgres']),
  )
  expect(command?.runAs).toBe('os-user')
})

describe('answers', () => {
  const cases: readonly (readonly [string, string, string | null])[] = [
    ['one value', '42\n', '42'],
    ['no row', '', null],
    ['an empty text', '\n', ''],
    ['SQL NULL', '\x1d\n', null],
    ['the first column of the first row', 'a\x1fb\x1ec\x1fd\n', 'a'],
    ['a NULL before others', '\x1d\x1fb\n', null],
    ['a value with line breaks in it', 'a\nb\n\n', 'a\nb\n'],
    ['other letters', 'Zürich ☃\n', 'Zürich ☃'],
  ]
  test.each(cases)('%s', async (_, rows, expected) => {
    for (const size of [10_000, 1, 7]) {
      const { session } = psql(() => ({ rows }), size)
      expect(await (await session).value('SELECT x')).toBe(expected)
    }
  })

  test('are read as JSON, over line breaks', async () => {
    const { session } = psql((sql) => ({ rows: sql === 'none' ? '' : '{"a":\n[1, "x"]}\n' }))
    expect(await (await session).json('SELECT j')).toEqual({ a: [1, 'x'] })
    expect(await (await session).json('none')).toBeNull()
  })

  test('a comment at the end, or a semicolon, does not swallow what follows', async () => {
    const { session, statements } = psql(() => ({ rows: '1\n' }))
    const opened = await session
    await opened.execute('SELECT 1 -- one')
    await opened.execute('SELECT 1 ; ')
    expect(statements).toEqual(['SELECT 1 -- one', 'SELECT 1'])
  })

  test('statements that are asked for at once are sent one after the other', async () => {
    const { session, statements } = psql((sql) => ({ rows: `${sql}!\n` }), 3)
    const opened = await session
    const asked = ['a', 'b', 'c'].map((sql) => opened.value(sql))
    expect(await Promise.all(asked)).toEqual(['a!', 'b!', 'c!'])
    expect(statements).toEqual(['a', 'b', 'c'])
  })
})

describe('failures', () => {
  test('the server’s error keeps its message and SQLSTATE, and the session goes on', async () => {
    const { session } = psql((sql) =>
      sql === 'bad' ? { error: ['42P01', 'relation "t" does not exist\nLINE 1'] } : { rows: '1\n' },
    )
    const opened = await session
    const failed = opened.execute('bad')
    await expect(failed).rejects.toMatchObject({
      code: 'sql-failed',
      message: 'the server refused a statement: relation "t" does not exist\nLINE 1',
      detail: 'SQLSTATE 42P01.',
      retryable: false,
    })
    expect(sqlStateOf(await failed.catch((error) => error))).toBe('42P01')
    expect(await opened.value('good')).toBe('1')
    expect(opened.isOpen).toBe(true)
  })

  test('one that failed does not disturb those that wait behind it', async () => {
    const { session } = psql((sql) =>
      sql === 'bad' ? { error: ['57014', 'canceling'] } : { rows: `${sql}\n` },
    )
    const opened = await session
    const results = await Promise.allSettled([opened.value('bad'), opened.value('next')])
    expect(results[0]).toMatchObject({ status: 'rejected', reason: { retryable: true } })
    expect(results[1]).toEqual({ status: 'fulfilled', value: 'next' })
  })

  test('a psql that ends says why; what waits and what comes later fails', async () => {
    const { session, process } = psql(() => undefined)
    const opened = await session
    const asked = [opened.value('a'), opened.value('b')]
    await Promise.resolve()
    process().printError('psql: error: connection to server was lost\n')
    process().exit(2)
    for (const one of asked) {
      await expect(one).rejects.toMatchObject({
        code: 'not-answering',
        detail: 'psql said: psql: error: connection to server was lost',
        retryable: true,
      })
    }
    expect(opened.isOpen).toBe(false)
    await expect(opened.value('c')).rejects.toMatchObject({ code: 'not-answering' })
  })

  test.each([
    ['role "x" does not exist', '28000'],
    ['no pg_hba.conf entry for host "[local]", user "x", database "y", no encryption', '28000'],
    ['Peer authentication failed for user "x"', '28000'],
    ['database "y" does not exist', '3D000'],
    ['sorry, too many clients already', '53300'],
    ['remaining connection slots are reserved for roles with the SUPERUSER attribute', '53300'],
    ['the database system is starting up', undefined],
  ])('a login that the server refuses is the server’s error: %s', async (said, sqlState) => {
    const { session, process } = psql(() => undefined)
    const asked = (await session).execute('SELECT 1')
    process().printError(`psql: error: connection to server on socket failed: FATAL:  ${said}\n`)
    process().exit(2)
    const error = await asked.catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'sql-failed',
      message: `the server refused a statement: ${said}`,
    })
    expect(sqlStateOf(error)).toBe(sqlState)
  })

  test('a password that is asked for on the local socket is a refused login', async () => {
    const { session, process } = psql(() => undefined)
    const asked = (await session).execute('SELECT 1')
    process().printError(
      'psql: error: connection to server on socket failed: fe_sendauth: no password supplied\n',
    )
    process().exit(2)
    const error = await asked.catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'sql-failed' })
    expect(sqlStateOf(error)).toBe('28P01')
  })

  test('a lost connection is not answered', async () => {
    const { session, transport } = psql(() => undefined)
    const opened = await session
    const asked = opened.value('a')
    transport.loseConnection()
    await expect(asked).rejects.toMatchObject({
      code: expect.stringMatching(/not-answering|connection-lost/),
    })
    await expect(opened.value('b')).rejects.toThrow()
  })

  test('a server that hangs is given up after the time limit, and its session with it', async () => {
    vi.useFakeTimers()
    const { session } = psql(() => undefined)
    const opened = await session
    const asked = opened.value('SELECT pg_sleep(100)', { timeoutMs: 2_000 })
    const failed = expect(asked).rejects.toMatchObject({
      code: 'not-answering',
      detail: expect.stringContaining('2 s'),
    })
    await vi.advanceTimersByTimeAsync(2_001)
    await failed
    expect(opened.isOpen).toBe(false)
  })

  test('a write that fails leaves no deadline behind that nobody listens to', async () => {
    vi.useFakeTimers()
    const { session, process } = psql(() => undefined)
    const opened = await session
    process().exit(0)
    await expect(opened.value('a')).rejects.toThrow()
    expect(vi.getTimerCount()).toBe(0)
  })

  test('closing ends psql’s input', async () => {
    const { session, process } = psql(() => ({}))
    const ended = vi.fn()
    const opened = await session
    process().onInputEnd(ended)
    await opened.close()
    expect(ended).toHaveBeenCalledOnce()
    expect(opened.isOpen).toBe(false)
  })
})
