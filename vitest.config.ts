import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'dev/**/*.test.ts', '.github/**/*.test.ts'],
    globalSetup: 'test/setup.ts',
    // Most of the time they wait for processes and time-outs.
    maxWorkers: 3,
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})
