import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { bundle } from '../../dev/build.ts'
import { createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { logLines, type ReceivedSpan, serve, startCollector } from '../../test/service.ts'

const [TRACE_ID, SPAN_ID] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331']
const traceparent = (flags: string) => ({ traceparent: `00-${TRACE_ID}-${SPAN_ID}-${flags}` })
const SERVER = 2

let database: TestDatabase
beforeAll(async () => {
  database = await createTestDatabase()
  await database.sql`insert into users (username, email) values ('Alice', 'alice@example.com')`
})
afterAll(() => database.drop())

/** The service with a collector that records what it sends. */
async function traced(env: Record<string, string> = {}) {
  const collector = await startCollector()
  const api = await serve({ DATABASE_URL: database.url, OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...env })
  /** Stops it, and gives the spans that it sent. */
  const spans = async () => {
    await api.stop()
    return collector.spans()
  }
  return { ...api, collector, spans }
}

const requests = (spans: ReceivedSpan[]) => spans.filter(({ kind }) => kind === SERVER)

test("a request is a span in its caller's trace, and its statement a span in it", async () => {
  const api = await traced()
  await fetch(`${api.url}/users/1`, { headers: traceparent('01') })
  const [statement, request, ...others] = await api.spans()
  expect(others).toEqual([])
  expect(request).toMatchObject({ traceId: TRACE_ID, parentSpanId: SPAN_ID, name: 'GET /users/:id', kind: SERVER })
  expect(request?.attributes).toEqual({
    'http.request.method': 'GET',
    'url.scheme': 'http',
    'http.route': '/users/:id',
    'http.response.status_code': 200,
  })
  expect(statement).toMatchObject({ traceId: TRACE_ID, parentSpanId: request?.spanId, name: 'SELECT users', kind: 3 })
  expect(statement?.attributes).toEqual({
    'db.system.name': 'postgresql',
    'db.operation.name': 'SELECT',
    'db.collection.name': 'users',
    'db.query.text': expect.stringMatching(/^select .* = any\(\$1::bigint\[\]\)$/),
  })
  const ms = (Number(statement?.endTimeUnixNano) - Number(statement?.startTimeUnixNano)) / 1e6
  expect(ms).toBeGreaterThan(0)
  expect(Math.abs(Number(statement?.endTimeUnixNano) / 1e6 - Date.now())).toBeLessThan(60_000)
})

test('requests that share a statement are linked to its span', async () => {
  const api = await traced()
  const answers = Array.from({ length: 50 }, () => fetch(`${api.url}/users/1`))
  expect((await Promise.all(answers)).every(({ ok }) => ok)).toBe(true)
  const spans = await api.spans()
  const statements = new Map(spans.filter(({ kind }) => kind !== SERVER).map((span) => [span.spanId, span]))
  expect(statements.size).toBeLessThan(50)
  expect(requests(spans)).toHaveLength(50)
  const owners = [...statements.values()].map(({ parentSpanId }) => parentSpanId)
  for (const { spanId, links } of requests(spans)) {
    if (owners.includes(spanId)) continue
    expect(links).toHaveLength(1)
    for (const link of links) expect(statements.get(link.spanId)?.traceId).toBe(link.traceId)
  }
})

test('what failed is marked, by its status and by its SQLSTATE', async () => {
  await database.sql`alter table users add constraint forbidden check (username <> 'forbidden')`
  const api = await traced()
  const body = JSON.stringify({ username: 'forbidden', email: 'f@example.com' })
  await fetch(`${api.url}/users`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
  const [statement, request] = await api.spans()
  expect(statement).toMatchObject({ status: { code: 2 }, attributes: { 'error.type': '23514' } })
  expect(request).toMatchObject({ status: { code: 2 }, attributes: { 'error.type': '500' } })
})

test("OpenTelemetry's variables say where spans come from, and how they are sent", async () => {
  const api = await traced({
    OTEL_SERVICE_NAME: 'accounts',
    OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test',
    OTEL_EXPORTER_OTLP_HEADERS: 'x-tenant=one',
  })
  await fetch(`${api.url}/livez`)
  await api.stop()
  expect(api.collector.resource()).toMatchObject({
    'service.name': 'accounts',
    'service.version': expect.stringMatching(/^\d/),
    'deployment.environment.name': 'test',
  })
  const [message] = api.collector.messages
  expect(message).toMatchObject({ path: '/v1/traces', headers: { 'x-tenant': 'one' } })
  expect(message?.headers['content-type']).toBe('application/json')
})

test('the endpoint of traces is taken as it is', async () => {
  const collector = await startCollector()
  const OTEL_EXPORTER_OTLP_TRACES_ENDPOINT = `${collector.url}/my/traces`
  const api = await serve({ DATABASE_URL: database.url, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT })
  await fetch(`${api.url}/livez`)
  await api.stop()
  expect(collector.messages.map(({ path }) => path)).toEqual(['/my/traces'])
  expect(collector.resource()['service.name']).toBe('users-api')
})

test.each([
  ['parentbased_always_on', '1', ['01', undefined]],
  ['parentbased_always_off', '1', ['01']],
  ['parentbased_traceidratio', '0', ['01']],
  ['always_on', '1', ['00', '01', undefined]],
  ['always_off', '1', []],
  ['traceidratio', '0', []],
  ['traceidratio', '1', ['00', '01', undefined]],
])('%s with %s records the traces of %j', async (OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, recorded) => {
  const api = await traced({ OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG })
  await fetch(`${api.url}/livez`)
  for (const flags of ['00', '01']) await fetch(`${api.url}/users/1`, { headers: traceparent(flags) })
  const spans = requests(await api.spans())
  expect(spans).toHaveLength(recorded.length)
  expect(spans.some(({ name }) => name === 'GET /livez')).toBe(recorded.includes(undefined))
})

test('OTEL_SDK_DISABLED turns spans off', async () => {
  const api = await traced({ OTEL_SDK_DISABLED: 'true', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' })
  await fetch(`${api.url}/users/1`)
  expect(await api.spans()).toEqual([])
})

test.each([
  ['dead', () => 'http://127.0.0.1:1'],
  ['silent', async () => (await startCollector({ silent: true })).url],
])('a collector that is %s costs requests nothing and stops no stop, but the log tells of it', async (_, start) => {
  const api = await serve({ DATABASE_URL: database.url, OTEL_EXPORTER_OTLP_ENDPOINT: await start() })
  // More spans than may wait to be sent.
  const client = async () => {
    for (let i = 0; i < 60; i++) expect((await fetch(`${api.url}/users/1`)).status).toBe(200)
  }
  await Promise.all(Array.from({ length: 40 }, client))
  const since = performance.now()
  const lines = logLines(await api.stop())
  // Its own time-out, and what a busy machine adds.
  expect(performance.now() - since).toBeLessThan(15_000)
  expect(lines.filter(({ msg }) => msg === 'spans were lost').length).toBeGreaterThan(0)
})

test('nothing of OpenTelemetry, of metrics or of tokens is loaded unless it is asked for', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'users-api-bundle-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  await bundle(folder)
  const loaded = new Map<string, string>()
  const load = (name: string) => {
    if (loaded.has(name)) return
    const text = readFileSync(join(folder, name), 'utf8')
    loaded.set(name, text)
    for (const [, other] of text.matchAll(/(?:\bfrom|\bimport)"\.\/([^"]+)"/g)) if (other) load(other)
  }
  load('users-api.js')
  const start = [...loaded.values()].join('')
  expect(loaded.size).toBeGreaterThan(1)
  expect(start).toContain('/livez')
  for (const part of ['v1/traces', 'nodejs_eventloop_delay_seconds', 'BatchSpanProcessor', 'ERR_JWT_EXPIRED']) {
    expect(start.includes(part), part).toBe(false)
  }
})

test('requests that gave up before the answer are spans of 503, and none is told of as lost', async () => {
  const api = await traced({ DEADLINE_MS: '500' })
  await database.sql.begin(async (transaction) => {
    await transaction`lock table users in access exclusive mode`
    const answers = Array.from({ length: 20 }, (_, i) => fetch(`${api.url}/users/${i + 1}`))
    expect(new Set((await Promise.all(answers)).map(({ status }) => status))).toEqual(new Set([503]))
  })
  const spans = await api.spans()
  const failed = requests(spans).filter(({ attributes }) => attributes['error.type'] === '503')
  expect(failed).toHaveLength(20)
  expect(api.output()).not.toContain('spans were lost')
})
