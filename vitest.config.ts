import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: [
      'src/**/*.test.ts',
      'test/*.test.ts',
      'test/service/**/*.test.ts',
      'dev/**/*.test.ts',
      '.github/**/*.test.ts',
    ],
    globalSetup: 'test/setup.ts',
    // Most of the time they wait for processes and time-outs.
    maxWorkers: 3,
    // For what hangs; a machine that others use may be slow.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
  },
})
