import type { BaseAgent, ParsedKey } from 'ssh2'
import { settlesWithin } from './deferred.ts'

/** The keys an ssh-agent holds, and an agent that offers only one of them. */
export interface AgentKeys {
  readonly keys: readonly ParsedKey[]
  /** ssh2 offers all keys of an agent in the agent's order; we want our own order, one by one. */
  offering(key: ParsedKey): BaseAgent
}

const agentPatienceMs = 2000

/** Asks the agent behind a socket for its keys; rejects if it does not answer. */
export async function askAgent(socket: string): Promise<AgentKeys> {
  const { default: ssh2 } = await import('ssh2')
  const agent = new ssh2.OpenSSHAgent(socket)
  const asking = new Promise<readonly unknown[]>((resolve, reject) => {
    agent.getIdentities((error, keys) => (error ? reject(error) : resolve(keys ?? [])))
  })
  if (!(await settlesWithin(asking, agentPatienceMs))) throw new Error('it does not answer')
  const parsed = (await asking).map((key) => ssh2.utils.parseKey(key as Buffer) as ParsedKey | Error)
  class SingleKeyAgent extends ssh2.OpenSSHAgent {
    constructor(readonly key: ParsedKey) {
      super(socket)
    }
    override getIdentities(callback: (error?: Error, keys?: ParsedKey[]) => void): void {
      callback(undefined, [this.key])
    }
  }
  return {
    keys: parsed.filter((key): key is ParsedKey => !(key instanceof Error)),
    offering: (key) => new SingleKeyAgent(key) as BaseAgent,
  }
}
