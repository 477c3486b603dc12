import { defineConfig } from 'vitest/config'

// What the shell has set for other programs is kept from the tests and from what they start.
const FOREIGN = /^(PG[A-Z]+|OTEL_[A-Z_]+|FORCE_COLOR|NO_COLOR|NODE_OPTIONS|NODE_USE_ENV_PROXY|(https?|all|no)_proxy)$/i
for (const name of Object.keys(process.env)) if (FOREIGN.test(name)) delete process.env[name]

/** They start many processes, wait for time-outs or reckon for long, and take as long as all the others together: `npm run test:long` runs them. */
export const LONG = [
  'dev/dev.test.ts',
  'dev/check-migrations.test.ts',
  'dev/lint.test.ts',
  'dev/regular-expressions.test.ts',
  'dev/third-party.test.ts',
  'bench/bench.test.ts',
  'src/main.test.ts',
  'src/auth/verifier.test.ts',
  'src/db/tls.test.ts',
  'src/http/assets.test.ts',
  'src/http/audit.test.ts',
  'src/http/log.test.ts',
  'src/telemetry/metrics.test.ts',
  'src/telemetry/tracing.test.ts',
  'src/kubernetes/ensure-secret.test.ts',
  'src/http/rate-limit.test.ts',
  'src/users/properties.test.ts',
  'src/users/bulk.test.ts',
  'test/service/attacks.test.ts',
  'test/service/hostile.test.ts',
  'test/service/replica.test.ts',
  '.github/scripts/release-version.test.ts',
  '.github/scripts/set-image.test.ts',
]

export default defineConfig({
  test: {
    include: [
      '{src,dev,bench,.github/scripts,test/{service,cloudrun}}/**/*.test.ts',
      'test/*.test.ts',
      'test/second-resource/*.test.ts',
    ],
    exclude: LONG,
    globalSetup: 'test/setup.ts',
    // Most of the time they wait for processes and time-outs.
    maxWorkers: 3,
    // For what hangs; a machine that others use may be slow.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 30_000 } },
  },
})
