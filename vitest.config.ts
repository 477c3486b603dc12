import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'dev/**/*.test.ts', '.github/**/*.test.ts'],
    globalSetup: 'test/setup.ts',
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})
