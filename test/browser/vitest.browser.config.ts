import { defineConfig } from 'vitest/config'
import config from '../../vitest.config.ts'

/** The pages as people meet them, in Chromium. */
export default defineConfig({
  ...config,
  test: { ...config.test, include: ['test/browser/*.test.ts'], exclude: [], maxWorkers: 1 },
})
