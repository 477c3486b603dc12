import { defineConfig } from 'vitest/config'
import config from '../../vitest.config.ts'

/** The service behind PgBouncer: its own tests, and the suite of faults once more. */
export default defineConfig({
  ...config,
  test: {
    ...config.test,
    include: ['test/pooler/*.test.ts', 'test/service/faults.test.ts'],
    maxWorkers: 1,
    provide: { throughPooler: true },
  },
})
