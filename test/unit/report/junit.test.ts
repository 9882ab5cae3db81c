import { describe, expect, test } from 'vitest'
import type { Problem } from '../../../src/cluster/problem.ts'
import { junitXml } from '../../../src/report/junit.ts'
import type { VerifyResult } from '../../../src/report/verify.ts'

const result: VerifyResult = {
  token: 'f3a9',
  lsn: '0/5000148',
  nodes: [
    { name: 'pg2', ok: true, latency_ms: 12, timeline: 3 },
    { name: 'pg3', ok: false, latency_ms: null, timeline: 3 },
  ],
  archive: { ok: true, segment: '000000030000000000000005', latency_ms: 420 },
}
const problem = (changes: Partial<Problem>): Problem => ({
  code: 'not-streaming',
  severity: 'error',
  node: 'pg3',
  message: 'pg3 does not stream',
  hint: null,
  ...changes,
})

test('has a test case for each node and the archive', () => {
  const problems = [
    problem({ detail: 'Said "no" <here> & \x1b[31mthere\x00.', hint: 'Look.\nThen wait.' }),
    problem({ code: 'clock-skew', severity: 'warning', message: 'the clocks differ' }),
  ]
  expect(junitXml({ cluster: 'shop', result, problems, elapsedMs: 1_234 })).toBe(
    `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="replctl verify shop" tests="3" failures="1" errors="0" time="1.234">
  <testsuite name="replctl verify shop" tests="3" failures="1" errors="0" time="1.234" skipped="0">
    <testcase classname="replctl.verify.shop" name="pg2" time="0.012"/>
    <testcase classname="replctl.verify.shop" name="pg3" time="0.000">
      <failure type="not-streaming" message="pg3 does not stream">error: pg3 does not stream
detail: Said "no" &lt;here&gt; &amp; there.
hint: Look.
Then wait.</failure>
    </testcase>
    <testcase classname="replctl.verify.shop" name="archive" time="0.420"/>
    <system-out>warning: the clocks differ</system-out>
  </testsuite>
</testsuites>
`,
  )
})

describe('the report fails whenever verify does', () => {
  const xml = (problems: Problem[], of: VerifyResult | null = result) =>
    junitXml({ cluster: 'shop', result: of, problems, elapsedMs: 0 })

  test('a node that failed without a problem says so', () => {
    expect(xml([])).toContain('<failure type="verify" message="the row was not read back">')
  })

  test('an error of a node whose row arrived is a failure', () => {
    expect(xml([problem({ node: 'pg2', code: 'wrong-upstream', message: 'wrong' })])).toContain(
      'name="pg2" time="0.012">\n      <failure type="wrong-upstream" message="wrong">',
    )
  })

  test('an error of the archive belongs to the archive, also where a node is named', () => {
    expect(xml([problem({ node: 'pg1', code: 'archive-failing', message: 'fails' })])).toContain(
      'name="archive" time="0.420">\n      <failure type="archive-failing" message="fails">',
    )
  })

  test('an error of another node or of the whole cluster has a test case of its own', () => {
    const text = xml(
      [problem({ node: 'pg9', message: 'gone' }), problem({ node: null, message: 'a "b"\nc' })],
      null,
    )
    expect(text).toContain('tests="2" failures="2"')
    expect(text).toContain('name="pg9" time="0.000">\n      <failure type="not-streaming" message="gone">')
    expect(text).toContain(
      'name="cluster" time="0.000">\n      <failure type="not-streaming" message="a &quot;b&quot;&#10;c">',
    )
  })
})

test('half a surrogate pair does not make the document invalid', () => {
  const xml = junitXml({
    cluster: 'shop',
    result: null,
    problems: [problem({ message: 'a\ud800b🐘\ufffe' })],
    elapsedMs: 0,
  })
  expect(xml).toContain('message="ab🐘"')
})
