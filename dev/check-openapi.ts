// Part of `npm run check`: Redocly finds nothing to say about the description of the service, without and with authentication.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseConfig } from '../src/config.ts'
import { openApi } from '../src/http/openapi.ts'
import { describeUsers } from '../src/users/schemas.ts'

const REDOCLY = fileURLToPath(new URL('../node_modules/.bin/redocly', import.meta.url))

/** So that all is described. */
const ALL = {
  AUTH_ISSUER: 'http://localhost:1',
  AUTH_AUDIENCE: 'users-api',
  AUTH_IAP_AUDIENCE: 'users-api',
  AUTH_IAP_JWKS_URL: 'http://localhost:1',
  RATE_LIMIT: '100/60',
}

const describe = async (env: Record<string, string>) =>
  (await openApi({ ...parseConfig(env), resources: [describeUsers] }).request('/openapi.json')).text()

const folder = mkdtempSync(join(tmpdir(), 'openapi-'))
try {
  const files = await Promise.all(
    Object.entries({ open: {}, all: ALL }).map(async ([name, env]) => {
      const file = join(folder, `${name}.json`)
      writeFileSync(file, await describe(env))
      return file
    }),
  )
  const { status } = spawnSync(REDOCLY, ['lint', '--extends=recommended-strict', ...files], {
    stdio: 'inherit',
    env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' },
  })
  process.exitCode = status ?? 1
} finally {
  rmSync(folder, { recursive: true })
}
