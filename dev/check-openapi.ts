// Part of `npm run check`: Redocly finds nothing to say about the description of the service, without and with authentication.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createApp } from '../src/app.ts'
import { parseConfig } from '../src/config.ts'
import type { Auth } from '../src/http/auth.ts'
import { createLog } from '../src/http/log.ts'
import type { UserStore } from '../src/users/store.ts'

const REDOCLY = fileURLToPath(new URL('../node_modules/.bin/redocly', import.meta.url))

const verify = () => Promise.reject(new Error('nobody asks'))
const auth: Auth = { readScope: 'users:read', writeScope: 'users:write', tokens: verify, iap: verify }

const appWith = (auth: Auth | undefined) =>
  createApp({
    ...parseConfig({}).app,
    auth,
    // So that all is described.
    ...(auth && { limitRate: (_c, next) => next() }),
    // Nobody asks them.
    users: {} as UserStore,
    ready: async () => {},
    log: createLog({ level: 'silent' }),
    stopping: new AbortController().signal,
  })

const folder = mkdtempSync(join(tmpdir(), 'openapi-'))
try {
  const files = await Promise.all(
    Object.entries({ open: undefined, auth }).map(async ([name, auth]) => {
      const file = join(folder, `${name}.json`)
      writeFileSync(file, await (await appWith(auth).request('/openapi.json')).text())
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
