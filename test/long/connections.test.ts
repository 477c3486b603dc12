import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { expect, onTestFinished, test } from 'vitest'
import { startPostgres } from '../../dev/postgres.ts'
import { main } from '../process.ts'

/** What kustomize/base gives PostgreSQL, less what it reserves for superusers. */
const MAX_CONNECTIONS = 250 - 3
/** A rollout of 12 pods: one is new, and three still drain. */
const PODS = 12 + 1 + 3
const DRAINING = 3
const LOAD_MS = 8000

test('a rollout of twelve pods under load never uses up the connections, and idle pods keep one', async () => {
  const pg = await startPostgres({ settings: { fsync: 'off', max_connections: 250 } })
  const admin = postgres(pg.url, { max: 1, onnotice: () => {} })
  onTestFinished(async () => {
    await admin.end()
    await pg.stop()
  })
  // A machine that is busy answers late. It must not look like one that has no connections.
  const arrival = { HEADERS_TIMEOUT_MS: '120000', REQUEST_TIMEOUT_MS: '120000' }
  const patience = { STARTUP_WAIT_MS: '60000', DEADLINE_MS: '60000', DRAIN_DELAY_MS: '15000', ...arrival }
  const env = { DATABASE_URL: pg.url, PORT: '0', HOST: '127.0.0.1', ...patience }
  expect(await main(['migrate'], env).exited).toBe(0)
  await admin`insert into users (username, email) select 'u' || i, 'u' || i || '@example.com' from generate_series(1, 20000) i`
  const pods = []
  for (let i = 0; i < PODS; i++) {
    const pod = main(['serve'], env)
    const [, port] = await pod.printed(/"port":(\d+),"msg":"listening"/)
    pods.push({ ...pod, url: `http://127.0.0.1:${port}` })
  }
  const count = async () => {
    const rows = await admin`select from pg_stat_activity where application_name = 'users-api'`
    return rows.length
  }

  let running = true
  let created = 0
  const statuses = new Set<number>()
  async function load(url: string, i: number) {
    const get = async (path: string, accept = '*/*') => {
      const response = await fetch(url + path, { headers: { accept } })
      await response.text()
      statuses.add(response.status)
    }
    while (running) {
      if (i % 4 === 0) await get('/users', 'application/x-ndjson')
      else if (i % 4 === 1) await get(`/users?limit=${100 + i}`)
      else if (i % 4 === 2) await get(`/users?username=u${i}`)
      else {
        created++
        const body = JSON.stringify({ username: `new${created}`, email: `new${created}@example.com` })
        const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body }
        statuses.add((await fetch(`${url}/users`, init)).status)
      }
    }
  }
  const clients = pods.flatMap(({ url }) => Array.from({ length: 16 }, (_, i) => load(url, i)))
  // The load is not there at once on a machine that is busy.
  await expect.poll(count, { timeout: 120_000 }).toBeGreaterThan(PODS)
  let most = 0
  for (const until = performance.now() + LOAD_MS; performance.now() < until; await sleep(50)) {
    most = Math.max(most, await count())
  }
  running = false
  await Promise.all(clients)
  expect(most).toBeGreaterThan(PODS)
  expect(most).toBeLessThanOrEqual(MAX_CONNECTIONS)
  expect([...statuses].sort()).toEqual([200, 201])

  for (const pod of pods.slice(0, DRAINING)) pod.process.kill('SIGTERM')
  await expect.poll(count, { timeout: 60_000 }).toBeLessThanOrEqual(PODS)
  for (const pod of pods.slice(DRAINING)) pod.process.kill('SIGTERM')
  for (const pod of pods) {
    expect(await pod.exited).toBe(0)
    expect(pod.stdout()).not.toContain('unavailable')
  }
}, 300_000)
