import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { get as httpGet } from 'node:http'
import { connect } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { ROOT } from '../../test/process.ts'
import { sampleOf, serve } from '../../test/service.ts'
import descriptions from './metrics.json' with { type: 'json' }

const REQUESTS = 'http_server_request_duration_seconds_count'
const STATEMENTS = 'db_client_operation_duration_seconds_count'

let database: TestDatabase
let api: Awaited<ReturnType<typeof serve>>
beforeAll(async () => {
  database = await createTestDatabase()
  await database.sql`insert into users (username, email) select 'u' || i, 'u' || i || '@example.com' from generate_series(1, 20000) i`
})
afterAll(() => database.drop())
beforeEach(async () => {
  api = await serve({ DATABASE_URL: database.url, METRICS_PORT: '0', MAX_REQUESTS: '40', MAX_STREAMS: '1' })
})

/** Sends so many requests at once. */
const load = (count: number, path: (i: number) => string) =>
  Promise.all(Array.from({ length: count }, async (_, i) => (await fetch(api.url + path(i))).text()))

describe('requests', () => {
  test('are counted exactly, by method, route and status, whatever happens to a scrape', async () => {
    const cut = () => {
      const socket = connect(Number(new URL(api.metricsUrl).port), '127.0.0.1')
      socket.on('error', () => {}).end('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n')
      setImmediate(() => socket.destroy())
    }
    for (let round = 0; round < 10; round++) {
      cut()
      await Promise.all([load(20, (i) => `/users/${i + 1}`), load(3, () => '/users/x'), api.metrics()])
    }
    const text = await api.metrics()
    const byId = ['http_request_method="GET"', 'http_route="/users/:id"']
    expect(sampleOf(text, REQUESTS, ...byId, 'http_response_status_code="200"')).toBe(200)
    expect(sampleOf(text, REQUESTS, ...byId, 'http_response_status_code="400"')).toBe(30)
    expect(sampleOf(text, 'http_server_request_duration_seconds_bucket', ...byId, 'le="+Inf"')).toBe(230)
    expect(sampleOf(text, 'http_server_active_requests')).toBe(0)
  })

  test('that share a statement are one operation of the database', async () => {
    await load(30, (i) => `/users/${i + 1}`)
    const text = await api.metrics()
    const shared = sampleOf(text, 'db_client_batch_size_count', 'gather="gets"')
    expect(sampleOf(text, 'db_client_batch_size_sum', 'gather="gets"')).toBe(30)
    expect(shared).toBeLessThan(30)
    const labels = ['db_operation_name="SELECT"', 'db_collection_name="users"']
    expect(sampleOf(text, STATEMENTS, ...labels)).toBe(shared)
  })

  test('that are under way are told apart from those that are refused, and connections by what they do', async () => {
    await database.sql.begin(async (transaction) => {
      await transaction`lock table users in access exclusive mode`
      const waiting = load(50, (i) => `/users/${i + 1}`)
      const refused = (text: string) => sampleOf(text, 'http_server_refused_requests_total', 'reason="requests"')
      await expect.poll(async () => refused(await api.metrics())).toBe(10)
      const text = await api.metrics()
      expect(sampleOf(text, 'http_server_active_requests')).toBe(40)
      expect(sampleOf(text, 'db_client_connections', 'state="used"')).toBe(2)
      expect(sampleOf(text, 'db_client_connections_max')).toBe(9)
      return [waiting]
    })
  })

  test('that stream are counted apart', async () => {
    const headers = { accept: 'application/x-ndjson' }
    const stream = httpGet(`${api.url}/users`, { headers })
    const [response] = await once(stream, 'response')
    expect(sampleOf(await api.metrics(), 'http_server_active_streams')).toBe(1)
    expect((await fetch(`${api.url}/users`, { headers })).status).toBe(503)
    expect(sampleOf(await api.metrics(), 'http_server_refused_requests_total', 'reason="streams"')).toBe(1)
    response.destroy()
    await expect.poll(async () => sampleOf(await api.metrics(), 'http_server_active_streams')).toBe(0)
  })
})

test('a statement that fails has the reason as its label', async () => {
  await database.sql`alter table users add constraint forbidden check (username <> 'forbidden')`
  const body = JSON.stringify({ username: 'forbidden', email: 'f@example.com' })
  const headers = { 'content-type': 'application/json' }
  expect((await fetch(`${api.url}/users`, { method: 'POST', headers, body })).status).toBe(500)
  const labels = ['db_operation_name="INSERT"', 'error_type="23514"']
  expect(sampleOf(await api.metrics(), STATEMENTS, ...labels)).toBe(1)
})

test('a database that is away is down, and the requests that it refuses are counted', async () => {
  const lost = await serve({ DATABASE_URL: 'postgres://a@127.0.0.1:1/a', METRICS_PORT: '0', STARTUP_WAIT_MS: '0' })
  await lost.printed(/database unavailable/)
  expect((await fetch(`${lost.url}/users`)).status).toBe(503)
  expect((await fetch(`${lost.url}/users`, { headers: { accept: 'text/html' } })).status).toBe(503)
  const text = await lost.metrics()
  expect(sampleOf(text, 'db_up')).toBe(0)
  expect(sampleOf(text, 'http_server_refused_requests_total', 'reason="database"')).toBe(2)
  expect(sampleOf(await api.metrics(), 'db_up')).toBe(1)
})

test('the process tells of its event loop, its CPU time, its memory and its version', async () => {
  await expect
    .poll(async () => sampleOf(await api.metrics(), 'nodejs_eventloop_delay_seconds_count'))
    .toBeGreaterThan(1)
  const text = await api.metrics()
  for (const name of [
    'nodejs_eventloop_time_seconds_total',
    'process_cpu_seconds_total',
    'process_resident_memory_bytes',
  ]) {
    expect(sampleOf(text, name), name).toBeGreaterThan(0)
  }
  expect(Math.abs(sampleOf(text, 'process_start_time_seconds') - Date.now() / 1000)).toBeLessThan(120)
  expect(text).toMatch(/^build_info\{name="users-api",version="[\d.]+",node="v\d+[\d.]+"\} 1$/m)
})

test('/metrics is on its own port alone, and on none if that is unset', async () => {
  expect((await fetch(`${api.url}/metrics`)).status).toBe(404)
  const answer = await fetch(api.metricsUrl)
  expect(answer.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
  expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
  const missing = await fetch(api.metricsUrl.replace('/metrics', '/users'))
  expect([missing.status, missing.headers.get('x-content-type-options')]).toEqual([404, 'nosniff'])
  const other = await serve({ DATABASE_URL: database.url })
  expect(other.stdout()).not.toContain('metricsPort')
  expect((await fetch(`${other.url}/metrics`)).status).toBe(404)
})

test('every metric is in the documents, and every one has its type and its meaning', async () => {
  const [text, documents] = [await api.metrics(), readFileSync(`${ROOT}docs/observability.md`, 'utf8')]
  for (const [name, { type, help }] of Object.entries(descriptions)) {
    expect(documents).toContain(`| \`${name}\` | ${type} | ${help} |`)
    expect(text).toContain(`# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`)
  }
})

test('a process that stops is still measured, and ends', async () => {
  const slow = await serve({ DATABASE_URL: database.url, METRICS_PORT: '0', DRAIN_DELAY_MS: '2000' })
  const stopped = slow.stop()
  await slow.printed(/stopping/)
  expect((await fetch(`${slow.url}/readyz`)).status).toBe(503)
  expect(sampleOf(await slow.metrics(), 'http_server_refused_requests_total', 'reason="stopping"')).toBe(1)
  await stopped
})
