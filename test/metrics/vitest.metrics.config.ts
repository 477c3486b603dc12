import { defineConfig } from 'vitest/config'
import config from '../../vitest.config.ts'

/** Needs `promtool`, which comes with Prometheus. */
export default defineConfig({ ...config, test: { ...config.test, include: ['test/metrics/*.test.ts'] } })
