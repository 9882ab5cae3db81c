import { PassThrough } from 'node:stream'
import { describe, expect, test, vi } from 'vitest'
import { program, Secret, shellScript } from '../../../src/command.ts'
import { ReplctlError } from '../../../src/errors.ts'
import { createRecordingTransport } from '../../../src/transport/recording-transport.ts'

describe('the recording transport', () => {
  test('answers by title and records what it was asked', async () => {
    const transport = createRecordingTransport({ host: 'db1' })
      .answer('pg_controldata /data', 'Database cluster state: shut down\n')
      .answer(/^test /, { status: 1, stderr: 'no' })
    expect(await transport.run(program('pg_controldata', ['/data']))).toEqual({
      status: 0,
      signal: null,
      stdout: 'Database cluster state: shut down\n',
      stderr: '',
    })
    expect(await transport.run(program('test', ['-e', '/x']), { timeoutMs: 5 })).toMatchObject({ status: 1 })
    expect(transport.titles).toEqual(['pg_controldata /data', 'test -e /x'])
    expect(transport.calls[1]).toMatchObject({ method: 'run', options: { timeoutMs: 5 } })
  })

  test('gives several answers in turn, later rules first, and what a function makes of the command', async () => {
    const transport = createRecordingTransport()
      .answer(/./, 'any')
      .answer('poll', 'f\n', 'f\n', 't\n')
      .answer(
        ({ args }) => args.length === 2,
        ({ args }) => args.join('+'),
      )
    const run = async (title: string, args: string[] = []) =>
      (await transport.run(shellScript(title, '', args))).stdout
    expect([await run('poll'), await run('poll'), await run('poll'), await run('poll')].join('')).toBe(
      'f\nf\nt\nt\n',
    )
    expect(await run('other')).toBe('any')
    expect(await run('sum', ['a', 'b'])).toBe('a+b')
  })

  test('throws what it was told to, and says what it has no answer for', async () => {
    const transport = createRecordingTransport().answer('down', new ReplctlError('connection-lost', 'gone'))
    await expect(transport.run(shellScript('down', ''))).rejects.toMatchObject({ code: 'connection-lost' })
    await expect(transport.run(shellScript('unheard of', ''))).rejects.toThrow('no answer for: unheard of')
    await expect(transport.start(shellScript('unheard of', ''))).rejects.toThrow('no answer for: unheard of')
  })

  test('plays a long-lived command', async () => {
    const transport = createRecordingTransport().answerStart('lock', (process) => {
      process.print('held\n')
      process.onLine((line) => process.print(`<${line}>`))
      process.onInputEnd(() => process.exit(3))
    })
    const running = await transport.start(shellScript('lock', ''))
    let seen = ''
    running.onStdout((text) => {
      seen += text
    })
    await running.write('a\nb')
    await running.write('c\n')
    running.endInput()
    expect(await running.finished).toEqual({ status: 3, signal: null })
    expect(seen).toBe('held\n<a><bc>')
    await expect(running.write('late\n')).rejects.toMatchObject({ code: 'remote-command-failed' })
    const other = await transport.answerStart('other', () => {}).start(shellScript('other', ''))
    other.kill()
    expect(await other.finished).toEqual({ status: null, signal: 'SIGTERM' })
  })

  test('loses the connection: what is pending and what comes later rejects', async () => {
    const transport = createRecordingTransport()
      .answer('slow', () => new Promise(() => {}))
      .answerStart('lock', () => {})
    const pending = transport.run(shellScript('slow', ''))
    const lock = await transport.start(shellScript('lock', ''))
    transport.loseConnection()
    const lost = { code: 'connection-lost' }
    await expect(pending).rejects.toMatchObject(lost)
    await expect(lock.finished).rejects.toMatchObject(lost)
    await expect(lock.write('x')).rejects.toMatchObject(lost)
    await expect(transport.run(shellScript('slow', ''))).rejects.toMatchObject(lost)
    await expect(transport.connect()).rejects.toMatchObject(lost)
  })

  test('opens the sockets it was given', async () => {
    const transport = createRecordingTransport().answerSocket('/run/.s.PGSQL.5432', () => new PassThrough())
    expect(await transport.openUnixSocket('/run/.s.PGSQL.5432')).toBeInstanceOf(PassThrough)
    await expect(transport.openUnixSocket('/run/.s.PGSQL.5433')).rejects.toMatchObject({
      code: 'not-answering',
    })
  })

  test('passes on what it has no answer for, and tells the observer of its own', async () => {
    const inner = createRecordingTransport({ socketPeerIsOsUser: false }).answer(/./, 'inner')
    const observer = { commandStarted: vi.fn(), commandFinished: vi.fn() }
    const transport = createRecordingTransport({ inner, observer }).answer('mine', 'outer')
    expect((await transport.run(shellScript('mine', ''))).stdout).toBe('outer')
    expect((await transport.run(shellScript('other', ''))).stdout).toBe('inner')
    expect(inner.titles).toEqual(['other'])
    expect(transport.socketPeerIsOsUser).toBe(false)
    expect(observer.commandStarted).toHaveBeenCalledOnce()
    expect(observer.commandFinished.mock.calls[0]![2]).toMatchObject({ stdout: 'outer' })
  })

  test('shows no secret in what it recorded', async () => {
    const transport = createRecordingTransport().answer('set', '')
    await transport.run(shellScript('set', 'cat', [], { stdin: new Secret('hunter2') }))
    expect(JSON.stringify(transport.calls)).not.toContain('hunter2')
  })
})
