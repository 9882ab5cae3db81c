// Loaded into a replctl that is to die at an exact point (NODE_OPTIONS=--import): nothing in replctl itself knows of it.
//
// RELIABILITY_AT   `command:7`: right after the seventh remote command was over, as --verbose tells it;
//                  `step:2`: right after the line that tells the end of the second step;
//                  `message:120`: right after the 120th piece was handed to the network, which is any instant at all.
// RELIABILITY_DEED `kill`: SIGKILL, on the spot. `pause`: creates $RELIABILITY_MARK, then stands still until $RELIABILITY_MARK.go
//                  is there, so that the test can break something at this very point.
// RELIABILITY_MARK also gets `.counts` at the end of a run that lived: how many points of each kind there were.
import { existsSync, writeFileSync } from 'node:fs'
import net from 'node:net'

const mark = process.env.RELIABILITY_MARK
const [wantedKind, wantedAt] = (process.env.RELIABILITY_AT ?? '').split(':')
const counts = { command: 0, step: 0, message: 0 }
let isOver = false

function reach(kind) {
  counts[kind] += 1
  if (isOver || kind !== wantedKind || counts[kind] !== Number(wantedAt)) return
  isOver = true
  if (process.env.RELIABILITY_DEED === 'kill') process.kill(process.pid, 'SIGKILL')
  writeFileSync(mark, '')
  const cell = new Int32Array(new SharedArrayBuffer(4))
  for (const deadline = Date.now() + 20_000; !existsSync(`${mark}.go`) && Date.now() < deadline; ) {
    Atomics.wait(cell, 0, 0, 3)
  }
}

const write = process.stderr.write
process.stderr.write = function (chunk, ...rest) {
  const result = write.call(this, chunk, ...rest)
  for (const _ of String(chunk).matchAll(/^\S+\$ .*: (?:exit status \d+|SIG[A-Z0-9]+), \d+ ms$/gm))
    reach('command')
  for (const _ of String(chunk).matchAll(/^[✓·] /gm)) reach('step')
  return result
}

const { write: send } = net.Socket.prototype
net.Socket.prototype.write = function (...args) {
  const result = send.apply(this, args)
  if (this.remoteAddress !== undefined) reach('message')
  return result
}

process.on('exit', () => {
  if (mark) writeFileSync(`${mark}.counts`, JSON.stringify(counts))
})
