import { join } from 'node:path'
import { defineConfig } from 'vitest/config'

/** Apart from the other end-to-end tests, because it needs a cluster with Argo CD. Each test goes on where the last one ended. */
export default defineConfig({
  test: {
    root: join(import.meta.dirname, '../..'),
    include: ['test/e2e/argocd.test.ts'],
    bail: 1,
    testTimeout: 600_000,
    hookTimeout: 600_000,
    disableConsoleIntercept: true,
  },
})
