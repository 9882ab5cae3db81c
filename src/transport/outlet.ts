import { StringDecoder } from 'node:string_decoder'

/** One output stream of a long-lived command. */
export interface Outlet {
  readonly push: (chunk: Buffer) => void
  readonly listen: (listener: (text: string) => void) => void
}

/** What is kept for a listener that comes late; beyond it the oldest goes, since most never listen to stderr. */
const mostHeldCharacters = 1_000_000

/** Decodes chunks and hands them on; what comes before the first listener waits for it. */
export function createOutlet(): Outlet {
  const decoder = new StringDecoder('utf8')
  const listeners: ((text: string) => void)[] = []
  let held = ''
  return {
    push: (chunk) => {
      const text = decoder.write(chunk)
      if (text === '') return
      for (const listener of listeners) listener(text)
      if (listeners.length === 0) held = (held + text).slice(-mostHeldCharacters)
    },
    listen: (listener) => {
      listeners.push(listener)
      if (held !== '') listener(held)
      held = ''
    },
  }
}
