import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['{src,dev,bench,.github,test/service}/**/*.test.ts', 'test/*.test.ts', 'test/second-resource/*.test.ts'],
    globalSetup: 'test/setup.ts',
    // Most of the time they wait for processes and time-outs.
    maxWorkers: 3,
    // For what hangs; a machine that others use may be slow.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
  },
})
