/** How a program on this machine ended; status null: it could not be started, or was killed. */
export interface EndedProgram {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program on this machine, without a shell. Resolves for every exit status. */
export async function runProgram(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly input?: Uint8Array; readonly timeoutMs?: number } = {},
): Promise<EndedProgram> {
  const { execa } = await import('execa')
  const { cwd, input, timeoutMs = 30_000 } = options
  const ended = await execa(program, [...args], {
    ...(cwd === undefined ? {} : { cwd }),
    ...(input === undefined ? { stdin: 'ignore' as const } : { input }),
    env: { LC_ALL: 'C' },
    timeout: timeoutMs,
    reject: false,
    maxBuffer: 8_000_000,
  })
  return { status: ended.exitCode ?? null, stdout: ended.stdout, stderr: ended.stderr }
}
