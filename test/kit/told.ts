import { expect } from 'vitest'
import type { ReplctlResult } from './replctl.ts'

/** Expects of an answer its exit code, whether it changed anything, and the `NODE CODE` of its problems; replctl's own words where it fails. */
export function told({ exitCode, json, stderr }: ReplctlResult) {
  const found = json?.problems.map((one: { node: string; code: string }) => `${one.node} ${one.code}`)
  const words = `${JSON.stringify(json?.problems)}\n${stderr}`
  return expect({ exit: exitCode, changed: json?.changed, found }, words)
}
