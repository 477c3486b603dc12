// Part of `npm run check`: Redocly finds nothing to say about the description of the service.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createApp } from '../src/app.ts'
import { parseConfig } from '../src/config.ts'
import { createLog } from '../src/http/log.ts'
import type { UserStore } from '../src/users/store.ts'

const REDOCLY = fileURLToPath(new URL('../node_modules/.bin/redocly', import.meta.url))

const app = createApp({
  ...parseConfig({}).app,
  // So that all is described.
  limitRate: (_c, next) => next(),
  // Nobody asks them.
  users: {} as UserStore,
  ready: async () => {},
  log: createLog({ level: 'silent' }),
  stopping: new AbortController().signal,
})
const folder = mkdtempSync(join(tmpdir(), 'openapi-'))
try {
  const file = join(folder, 'openapi.json')
  writeFileSync(file, await (await app.request('/openapi.json')).text())
  const { status } = spawnSync(REDOCLY, ['lint', '--extends=recommended-strict', file], {
    stdio: 'inherit',
    env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' },
  })
  process.exitCode = status ?? 1
} finally {
  rmSync(folder, { recursive: true })
}
