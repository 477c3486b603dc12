import { join } from 'node:path'
import { defineConfig } from 'vitest/config'

/** There is one cluster, so one file at a time; each brings it to the state that it needs. */
export default defineConfig({
  test: {
    root: join(import.meta.dirname, '../..'),
    include: ['test/e2e/*.e2e.ts'],
    globalSetup: ['test/e2e/setup.ts'],
    fileParallelism: false,
    testTimeout: 480_000,
    hookTimeout: 480_000,
    disableConsoleIntercept: true,
  },
})
