import { defineConfig } from 'vitest/config'

/** `npm run test:extended`: integration tests that take longer than `npm test` may, or that have yet to prove themselves. */
export default defineConfig({
  test: {
    maxWorkers: 2,
    include: ['test/extended/**/*.test.ts'],
    testTimeout: 900_000,
    hookTimeout: 900_000,
  },
})
