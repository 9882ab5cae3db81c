import { runChecked, runProcess } from './run-process.ts'

/** One cut between a host and a peer; without an address the peer is everybody. */
export interface LinkCut {
  readonly peer: string | undefined
  readonly address: string | undefined
  readonly port: number | undefined
}

/** nftables rules for a host's own network namespace that drop what the cuts say, and nothing else. */
export function dropRules(cuts: readonly LinkCut[]): string {
  const rules = (direction: 'input' | 'output') => {
    const [end, device] = direction === 'input' ? ['saddr', 'iifname'] : ['daddr', 'oifname']
    return cuts
      .flatMap(({ address, port }) => {
        const where = address === undefined ? `${device} "eth0"` : `ip ${end} ${address}`
        if (port === undefined) return [`${where} drop`]
        return [`${where} tcp dport ${port} drop`, `${where} tcp sport ${port} drop`]
      })
      .join('\n')
  }
  const chain = (hook: 'input' | 'output') =>
    `chain ${hook} { type filter hook ${hook} priority -300; policy accept;\n${rules(hook)}\n}`
  return `table inet cuts\ndelete table inet cuts\ntable inet cuts {\n${chain('input')}\n${chain('output')}\n}\n`
}

/** Limits what leaves through a device, or lifts the limit. `enter` are the words that enter its network namespace. */
export async function shapeRate(
  enter: readonly string[],
  device: string,
  rate: string | undefined,
): Promise<void> {
  const [program, ...args] = [...enter, 'tc', 'qdisc']
  if (rate === undefined) {
    await runProcess(program!, [...args, 'del', 'dev', device, 'root'])
    return
  }
  const bucket = ['tbf', 'rate', rate, 'burst', '128kb', 'latency', '100ms']
  await runChecked(program!, [...args, 'replace', 'dev', device, 'root', ...bucket])
}
