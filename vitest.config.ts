import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    // The integration tests start many processes: more files at a time than cores only make each wait longer.
    maxWorkers: 2,
    projects: [
      // Pure code: nothing a test does can reach another, so that one worker may serve many files.
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          pool: 'threads',
          isolate: false,
          testTimeout: 60_000, // a few start a shell, or the bundler: on a busy machine that takes its time
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'conformance',
          include: ['test/conformance/**/*.test.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
})
