// `npm run pictures`: makes the pictures of the README from the service itself, in the system's Chromium.
import { mkdirSync } from 'node:fs'
import { chromium, type Page } from 'playwright-core'
import { createClient } from '../src/client.ts'
import { originOf, whenListening } from './port.ts'
import { freePort, startPostgres } from './postgres.ts'
import { endChild } from './processes.ts'
import { applyMigrations, ROOT, startService } from './service.ts'

const FOLDER = `${ROOT}docs/pictures`
const HOST = '127.0.0.1'
const SIZE = { width: 900, height: 680 }
const QUALITY = 80
const GRACE_MS = 3000
const USERS = { Alice: 'alice', Bob: 'bob', Carol: 'carol', Дарья: 'darya', Élodie: 'elodie', فاطمة: 'fatima' }

/** What each picture shows, once `path` is open. */
const PICTURES: [name: string, path: string, prepare: (page: Page) => Promise<void>][] = [
  ['page', '/users', async () => {}],
  ['docs', '/docs', async (page) => await page.locator('.opblock').first().waitFor()],
]

async function takePictures(origin: string) {
  const { users } = createClient(origin)
  for (const [username, name] of Object.entries(USERS)) {
    await users.$post({ json: { username, email: `${name}@example.com` } })
  }
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium' })
  try {
    for (const colorScheme of ['light', 'dark'] as const) {
      const page = await browser.newPage({ baseURL: origin, colorScheme, viewport: SIZE, deviceScaleFactor: 2 })
      for (const [name, path, prepare] of PICTURES) {
        await page.goto(path)
        await prepare(page)
        await page.screenshot({ path: `${FOLDER}/${name}-${colorScheme}.webp`, type: 'webp', quality: QUALITY })
      }
    }
  } finally {
    await browser.close()
  }
}

mkdirSync(FOLDER, { recursive: true })
const postgres = await startPostgres({ settings: { fsync: 'off' } })
try {
  const port = await freePort()
  const env = { ...process.env, DATABASE_URL: postgres.url, HOST, PORT: String(port), LOG_LEVEL: 'warn' }
  await applyMigrations(env, true)
  const service = startService('serve', env)
  try {
    await whenListening(service, HOST, port, () => {})
    await takePictures(originOf(HOST, port))
  } finally {
    await endChild(service, 'SIGTERM', GRACE_MS)
  }
} finally {
  await postgres.stop()
}
