import { writeFileSync } from 'node:fs'

/** A vitest reporter that writes the skipped tests, and why, as JSON to the file named by REPLCTL_SKIPPED_TESTS. */
export default class SkippedReporter {
  onTestRunEnd(modules) {
    const skipped = []
    for (const module of modules) {
      for (const test of module.children.allTests('skipped')) {
        skipped.push({
          name: `${module.relativeModuleId}: ${test.fullName}`,
          reason: test.result().note ?? '',
        })
      }
    }
    writeFileSync(process.env.REPLCTL_SKIPPED_TESTS, JSON.stringify(skipped))
  }
}
