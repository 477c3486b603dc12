import { once } from 'node:events'
import { BlockList } from 'node:net'
import fc from 'fast-check'
import { Hono } from 'hono'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Answer, type Api, startApi } from '../../test/api.ts'
import { createTestDatabase } from '../../test/database.ts'
import { memoryInUse } from '../../test/memory.ts'
import { sampleOf, serve } from '../../test/service.ts'
import { parseConfig } from '../config.ts'
import { events } from '../events.ts'
import { startServer } from '../server.ts'
import type { Env } from './env.ts'
import { requestLog } from './log.ts'
import { onError } from './problem.ts'
import { clientOf, createCounter, limitRate } from './rate-limit.ts'

describe('the client', () => {
  const trusted = new BlockList()
  trusted.addSubnet('10.0.0.0', 8, 'ipv4')
  trusted.addSubnet('2001:db8:a::', 48, 'ipv6')
  const proxy = '10.0.0.1'
  const client = '203.0.113.7'

  test.each([
    ['is the peer', client, '', client],
    ['is the peer that no list names, whatever it sends', client, '198.51.100.1', client],
    ['is the peer in the form of a socket that takes IPv6 as well', `::ffff:${client}`, '', client],
    ['is whom a proxy names', proxy, client, client],
    ['is whom a proxy names in that form', `::ffff:${proxy}`, `::ffff:${client}`, client],
    ['is whom a proxy names, not whom the client names', proxy, `198.51.100.1, ${client}`, client],
    ['is whom the first of several proxies names', proxy, `198.51.100.1,${client},10.9.9.9 , 10.8.8.8`, client],
    ['is whom a proxy names behind one that has IPv6', proxy, `${client}, 2001:db8:a::1`, client],
    ['is the first proxy where all are proxies', proxy, '10.0.0.3, 10.0.0.2', '10.0.0.3'],
    ['is the proxy that names none', proxy, '', proxy],
    ['is the proxy that names no address', proxy, `${client}, unknown`, proxy],
    ['is the proxy that names half an address', proxy, `${client}, 1.2.3`, proxy],
    ['is the proxy that is before an empty entry', proxy, `${client}, ,10.0.0.2`, '10.0.0.2'],
    ['is nobody once the peer has hung up', '', client, ''],
    [
      'is the last of 32 proxies, what stands before them is not looked at',
      proxy,
      `${client}, 10.0.0.9${', 10.0.0.3'.repeat(31)}`,
      '10.0.0.9',
    ],
  ])('%s', (_, peer, forwardedFor, expected) => {
    expect(clientOf(peer, forwardedFor, trusted)).toBe(expected)
  })

  test('is nobody but the peer without a list', () => {
    expect(clientOf(proxy, client, new BlockList())).toBe(proxy)
  })

  test.each([
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8:1:2::', '2001:db8:1:2'],
    ['2001:db8:1:2::f', '2001:db8:1:2'],
    ['2001:db8::1', '2001:db8:0:0'],
    ['2001::2:3:4:5:6:7', '2001:0:2:3'],
    ['::1', ':0:0:0'],
    ['::', ':0:0:0'],
    ['::5:6:7:8', ':0:0:0'],
    ['1:2:3:4:5:6:7::', '1:2:3:4'],
    ['fe80::1%eth0', 'fe80:0:0:0'],
  ])('with IPv6 is a network: %s', (address, network) => {
    expect(clientOf(address, '', trusted)).toBe(network)
    expect(clientOf(proxy, address, trusted)).toBe(network)
  })

  test('is found however long the list is', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), fc.ipV4(), fc.nat(20), (before, address, hops) => {
        fc.pre(!trusted.check(address))
        const list = [...before, address, ...Array<string>(hops).fill('10.1.2.3')]
        expect(clientOf(proxy, list.join(','), trusted)).toBe(address)
      }),
    )
  })
})

/** What is counted, plainly: a bucket for each key, that fills evenly. A request takes as many parts as a window has ms. */
function createModel(quota: number, windowS: number) {
  const request = windowS * 1000
  const buckets = new Map<string, { parts: number; at: number }>()
  const partsOf = (key: string, now: number) => {
    const { parts, at } = buckets.get(key) ?? { parts: quota * request, at: 0 }
    return Math.min(quota * request, parts + (now - at) * quota)
  }
  return {
    left: (key: string, now: number) => Math.floor(partsOf(key, now) / request),
    take: (key: string, now: number) => buckets.set(key, { parts: partsOf(key, now) - request, at: now }),
  }
}

describe('the counter', () => {
  const rates = fc.record({ quota: fc.integer({ min: 1, max: 12 }), windowS: fc.integer({ min: 1, max: 30 }) })
  const requests = fc.array(fc.record({ key: fc.nat(5), pauseMs: fc.oneof(fc.constant(0), fc.nat(9000)) }), {
    minLength: 20,
    maxLength: 200,
  })

  test('counts as the plain model does', () => {
    fc.assert(
      fc.property(rates, requests, fc.nat(1e9), ({ quota, windowS }, steps, start) => {
        let now = start
        const take = createCounter(quota, windowS, () => now + Math.random() * 0.99)
        const model = createModel(quota, windowS)
        for (const { key, pauseMs } of steps) {
          now += pauseMs
          const isAllowed = model.left(`${key}`, now) > 0
          if (isAllowed) model.take(`${key}`, now)
          expect(take(`${key}`)).toMatchObject({ isAllowed, left: model.left(`${key}`, now) })
        }
      }),
    )
  })

  test('says when the next request is let in, to the second', () => {
    fc.assert(
      fc.property(rates, fc.nat(20_000), ({ quota, windowS }, pauseMs) => {
        let now = 0
        const take = createCounter(quota, windowS, () => now)
        for (let i = 0; i < quota; i++) expect(take('a').isAllowed).toBe(true)
        now += Math.min(pauseMs, (windowS * 1000) / quota - 1)
        const { isAllowed, left, seconds } = take('a')
        expect([isAllowed, left]).toEqual([false, 0])
        const refusedAt = now
        now = refusedAt + (seconds - 1) * 1000
        expect(take('a').isAllowed).toBe(false)
        now = refusedAt + seconds * 1000
        expect(take('a').isAllowed).toBe(true)
      }),
    )
  })

  test('never names a pace beyond the quota', () => {
    const take = createCounter(100, 60, () => 0)
    const answers = Array.from({ length: 100 }, () => take('a'))
    expect(answers.map(({ left }) => left)).toEqual(answers.map((_, i) => 99 - i))
    expect(answers[49]).toEqual({ isAllowed: true, left: 50, seconds: 30 })
    expect(answers[99]).toEqual({ isAllowed: true, left: 0, seconds: 1 })
    for (const { left, seconds } of answers) expect(left / seconds).toBeLessThanOrEqual(100 / 60)
  })

  test('lets nobody have more than a quota, however many keys share a slot', () => {
    fc.assert(
      fc.property(rates, requests, fc.integer({ min: 1, max: 4 }), ({ quota, windowS }, steps, slots) => {
        let now = 0
        const take = createCounter(quota, windowS, () => now, slots)
        const model = createModel(quota, windowS)
        for (const { key, pauseMs } of steps) {
          now += pauseMs
          const { isAllowed, left } = take(`${key}`)
          expect(left).toBeLessThanOrEqual(model.left(`${key}`, now))
          if (!isAllowed) continue
          expect(model.left(`${key}`, now)).toBeGreaterThan(0)
          model.take(`${key}`, now)
        }
      }),
    )
  })

  test('stays as large as it is with 1,000,000 forged addresses, and leaves the others as they are', () => {
    const bytes = () => {
      const { heapUsed, external } = memoryInUse()
      return heapUsed + external
    }
    const trusted = new BlockList()
    trusted.addSubnet('10.0.0.0', 8, 'ipv4')
    // All in one moment: nothing comes back meanwhile.
    const take = createCounter(100, 60, () => 0)
    const from = (forwardedFor: string) => take(clientOf('10.0.0.1', forwardedFor, trusted))
    const forge = (first: number, end: number) => {
      for (let i = first; i < end; i++) from(`198.51.100.1, 11.${i >> 16}.${(i >> 8) & 255}.${i & 255}`)
    }
    for (let i = 0; i < 101; i++) from('203.0.113.1')
    from('203.0.113.2')
    forge(0, 20_000)
    const before = bytes()
    forge(20_000, 1_000_000)
    expect(bytes() - before).toBeLessThan(2_000_000)
    expect(from('203.0.113.1')).toMatchObject({ isAllowed: false })
    expect(from('203.0.113.2').left).toBeGreaterThan(80)
    expect(from('203.0.113.3').left).toBeGreaterThan(80)
  })
})

const RATE_LIMIT = '3/86400'
const POLICY = '"default";q=3;w=86400'

describe('a service with a limit, behind a proxy', () => {
  let api: Api
  let id: number
  beforeAll(async () => {
    api = await startApi({ RATE_LIMIT, TRUSTED_PROXIES: '127.0.0.0/8', MAX_BODY_BYTES: '100000' })
    id = (await as(newClient(), 'POST', '/users', { username: 'Alice', email: 'alice@example.com' })).body.id
  })
  afterAll(() => api.close())

  let clients = 0
  const newClient = () => {
    clients++
    return `203.0.113.${clients}`
  }
  const as = (client: string, method: string, path: string, body?: unknown, headers = {}) =>
    api.request(method, path, body, { 'x-forwarded-for': client, ...headers })
  const limitOf = ({ headers }: Answer) => [headers.get('ratelimit-policy'), headers.get('ratelimit')]

  test.each([
    [200, 'GET', '/users/1', undefined, {}],
    [200, 'GET', '/users', undefined, {}],
    [200, 'HEAD', '/users', undefined, {}],
    [200, 'GET', '/users', undefined, { accept: 'application/x-ndjson' }],
    [200, 'GET', '/openapi.json', undefined, {}],
    [200, 'GET', '/docs', undefined, {}],
    [200, 'GET', '/assets/0/page.css', undefined, {}],
    [201, 'POST', '/users', { username: 'Bob', email: 'bob@example.com' }, {}],
    [204, 'OPTIONS', '/users', undefined, {}],
    [304, 'GET', '/users/1', undefined, { 'if-none-match': '*' }],
    [400, 'GET', '/users/x', undefined, {}],
    [404, 'GET', '/users/9999', undefined, {}],
    [404, 'GET', '/nothing', undefined, {}],
    [405, 'DELETE', '/users', undefined, {}],
    [409, 'POST', '/users', { username: 'Carol', email: 'alice@example.com' }, {}],
    [412, 'DELETE', '/users/1', undefined, { 'if-match': '"9"' }],
    [413, 'POST', '/users', { username: 'x'.repeat(100_000), email: '' }, {}],
    [415, 'POST', '/users', 'text', {}],
    [422, 'POST', '/users', { username: '' }, {}],
  ])('says in each answer what is left: %i to %s %s', async (status, method, path, body, headers) => {
    expect(id).toBe(1)
    const answer = await as(newClient(), method, path, body, headers)
    expect(answer.status).toBe(status)
    expect(limitOf(answer)).toEqual([POLICY, '"default";r=2;t=57600'])
    expect(answer.headers.get('x-request-id')).toBeTruthy()
  })

  test('refuses what is beyond it with the problem of the draft, until it may be tried again', async () => {
    const client = newClient()
    const answers: Answer[] = []
    for (let i = 0; i < 4; i++) answers.push(await as(client, 'GET', '/users/1'))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 429])
    const refused = answers[3] as Answer
    const wait = Number(refused.headers.get('retry-after'))
    expect(wait).toBeGreaterThan(28_000)
    expect(wait).toBeLessThanOrEqual(28_800)
    expect(limitOf(refused)).toEqual([POLICY, `"default";r=0;t=${wait}`])
    expect([refused.headers.get('content-type'), refused.headers.get('cache-control')]).toEqual([
      'application/problem+json',
      'no-store',
    ])
    expect(refused.body).toEqual({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      title: 'Too Many Requests',
      status: 429,
      detail: 'This client has used up its quota of requests.',
      instance: '/users/1',
      requestId: refused.headers.get('x-request-id'),
      'violated-policies': ['default'],
    })
    expect((await as(newClient(), 'GET', '/users/1')).status).toBe(200)
  })

  test('tells a person when to try again, and the metrics that it has refused', async () => {
    const client = newClient()
    const noted = once(events, 'refused')
    const pages: { status: number; limit: string | null; text: string }[] = []
    for (let i = 0; i < 4; i++) {
      const page = await fetch(`${api.url}/users`, { headers: { 'x-forwarded-for': client, accept: 'text/html' } })
      pages.push({ status: page.status, limit: page.headers.get('ratelimit'), text: await page.text() })
    }
    expect(pages.map(({ status }) => status)).toEqual([200, 200, 200, 429])
    expect(pages[0]?.limit).toBe('"default";r=2;t=57600')
    expect(pages[3]?.text).toMatch(/<p>This client has used up its quota of requests\. Try again in \d+ s\.<\/p>/)
    expect(await noted).toEqual(['quota'])
  })

  test('asks for no body that it refuses', async () => {
    const client = newClient()
    for (let i = 0; i < 3; i++) await as(client, 'GET', '/users/1')
    const head = `POST /users HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ${client}\r\nContent-Type: application/json\r\n`
    const answer = await api.raw(`${head}Content-Length: 50000\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1.1 429 /)
    const sent = await as(client, 'POST', '/users', { username: 'x'.repeat(90_000), email: '' })
    expect(sent.status).toBe(429)
  })

  test('counts whom the proxy names, in one header or several, and not whom the client names', async () => {
    const client = newClient()
    const get = (...lines: string[]) =>
      api.raw(['GET /users/1 HTTP/1.1', 'Host: a', 'Connection: close', ...lines, '', ''].join('\r\n'))
    expect(await get(`X-Forwarded-For: 198.51.100.1, ${client}`)).toContain('r=2;')
    expect(await get('X-Forwarded-For: 198.51.100.2', `X-Forwarded-For: ${client}`)).toContain('r=1;')
    expect(await get(`x-forwarded-for: garbage, ${client}, 127.0.0.9`)).toContain('r=0;')
    expect(await get('X-Forwarded-For: 198.51.100.3', `X-Forwarded-For: ${client}`)).toMatch(/^HTTP\/1.1 429 /)
  })

  test('counts a /64 of IPv6 as one client', async () => {
    expect(limitOf(await as('2001:db8:1:2::1', 'GET', '/users/1'))[1]).toContain('r=2;')
    expect(limitOf(await as('2001:db8:1:2:ffff::2', 'GET', '/users/1'))[1]).toContain('r=1;')
    expect(limitOf(await as('2001:db8:1:3::1', 'GET', '/users/1'))[1]).toContain('r=2;')
  })

  test('always answers health checks', async () => {
    const client = newClient()
    for (let i = 0; i < 10; i++) {
      const answers = [await as(client, 'GET', '/livez'), await as(client, 'GET', '/readyz')]
      expect(answers.map(({ status }) => status)).toEqual([200, 200])
      expect(limitOf(answers[0] as Answer)).toEqual([null, null])
    }
    expect(limitOf(await as(client, 'GET', '/users/1'))[1]).toContain('r=2;')
  })
})

test('without a list of proxies, no header gives a client another address', async () => {
  const api = await startApi({ RATE_LIMIT })
  onTestFinished(() => api.close())
  // The description has been asked for already.
  for (const [i, status] of [200, 200, 429].entries()) {
    const answer = await api.request('GET', '/users', undefined, { 'x-forwarded-for': `203.0.113.${i}` })
    expect(answer.status).toBe(status)
  }
})

test('without a limit, no answer speaks of one', async () => {
  const api = await startApi()
  onTestFinished(() => api.close())
  const { headers } = await api.request('GET', '/users')
  expect([headers.get('ratelimit'), headers.get('ratelimit-policy')]).toEqual([null, null])
})

test('a client that has a token is whom it names, wherever it comes from', async () => {
  const app = new Hono<Env>()
    .use(requestLog({ ...parseConfig({}), log: pino({ level: 'silent' }) }))
    .use(async (c, next) => {
      const subject = c.req.header('x-subject')
      if (subject !== undefined) c.set('identity', { issuer: 'https://issuer.example', subject, person: subject })
      await next()
    })
    .use(limitRate({ rate: '2/86400', proxies: ['127.0.0.1/32', '::1/128'] }))
    .get('/', (c) => c.text('ok'))
  app.onError(onError)
  const config = parseConfig({ PORT: '0', HOST: '127.0.0.1', DRAIN_DELAY_MS: '0' })
  const server = await startServer({ ...config, fetch: app.fetch, stopping: new AbortController().signal })
  onTestFinished(() => server.stop())
  const left = async (address: string, subject?: string) => {
    const headers = { 'x-forwarded-for': address, ...(subject !== undefined && { 'x-subject': subject }) }
    const answer = await fetch(`http://127.0.0.1:${server.port}/`, { headers })
    await answer.text()
    return answer.status === 200 ? Number(/r=(\d)/.exec(answer.headers.get('ratelimit') ?? '')?.[1]) : answer.status
  }
  expect(await left('203.0.113.1', 'alice')).toBe(1)
  expect(await left('203.0.113.2', 'alice')).toBe(0)
  expect(await left('203.0.113.3', 'alice')).toBe(429)
  expect(await left('203.0.113.1', 'bob')).toBe(1)
  // Nobody uses up the quota of an address, or of all that have no token, by such a name.
  expect(await left('203.0.113.1', '203.0.113.9')).toBe(1)
  expect(await left('203.0.113.1', '')).toBe(1)
  expect(await left('203.0.113.9')).toBe(1)
  expect(await left('203.0.113.1')).toBe(1)
})

test('the process limits where RATE_LIMIT says so, and its metrics count refusals', async () => {
  const database = await createTestDatabase()
  onTestFinished(() => database.drop())
  const api = await serve({ DATABASE_URL: database.url, METRICS_PORT: '0', RATE_LIMIT: '1/86400' })
  onTestFinished(async () => void (await api.stop()))
  const statuses = []
  for (let i = 0; i < 3; i++) statuses.push((await fetch(`${api.url}/users`)).status)
  expect(statuses).toEqual([200, 429, 429])
  expect(sampleOf(await api.metrics(), 'http_server_refused_requests_total', 'reason="quota"')).toBe(2)
})
