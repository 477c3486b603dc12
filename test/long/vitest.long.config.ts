import { defineConfig } from 'vitest/config'
import config, { LONG } from '../../vitest.config.ts'

/** Tests that take longer than a person waits, or the whole machine. */
export default defineConfig({
  ...config,
  test: { ...config.test, include: ['test/long/*.test.ts', ...LONG], exclude: [], maxWorkers: 1 },
})
