import { join } from 'node:path'
import { defineConfig } from 'vitest/config'

/** Apart from the other end-to-end tests, because it needs a cluster with CloudNativePG. Each test goes on where the last one ended. */
export default defineConfig({
  test: {
    root: join(import.meta.dirname, '../..'),
    include: ['test/e2e/cnpg.test.ts'],
    bail: 1,
    testTimeout: 240_000,
    hookTimeout: 300_000,
    disableConsoleIntercept: true,
  },
})
