import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { startIssuer } from '../../dev/issuer.ts'
import { type Api, startApi } from '../../test/api.ts'
import { serve } from '../../test/service.ts'

const APP = 'https://app.example'
const OTHER = 'https://other.example'

let api: Api
let closed: Api
beforeAll(async () => {
  api = await startApi({ CORS_ORIGINS: `${APP}, http://localhost:5173` })
  closed = await startApi({ DATABASE_URL: api.database?.url ?? '' })
})
afterAll(async () => {
  await closed.close()
  await api.close()
})

const corsHeaders = ({ headers }: Response) =>
  Object.fromEntries([...headers].filter(([name]) => name.startsWith('access-control-')))
const wordsOf = (response: Response, name: string) => response.headers.get(name)?.toLowerCase().split(/,\s*/) ?? []

const preflight = (path: string, method: string, origin = APP, { url } = api) =>
  fetch(url + path, {
    method: 'OPTIONS',
    headers: { origin, 'access-control-request-method': method, 'access-control-request-headers': 'if-match' },
  })

describe('without CORS_ORIGINS', () => {
  test('no answer lets a page of another origin read it', async () => {
    for (const method of ['GET', 'POST', 'OPTIONS']) {
      const answer = await fetch(`${closed.url}/users`, { method, headers: { origin: APP } })
      expect(corsHeaders(answer)).toEqual({})
      expect(answer.headers.get('vary') ?? '').not.toContain('Origin')
    }
    expect(corsHeaders(await preflight('/users', 'POST', APP, closed))).toEqual({})
  })
})

describe('with CORS_ORIGINS', () => {
  test.each(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'])('a page may ask before it sends %s', async (method) => {
    const answer = await preflight('/users/1', method)
    expect(answer.status).toBe(204)
    expect(answer.headers.get('access-control-allow-origin')).toBe(APP)
    expect(wordsOf(answer, 'access-control-allow-methods')).toContain(method.toLowerCase())
    for (const name of ['authorization', 'content-type', 'idempotency-key', 'if-match', 'if-none-match', 'traceparent'])
      expect(wordsOf(answer, 'access-control-allow-headers')).toContain(name)
    expect(answer.headers.get('access-control-max-age')).toBe('600')
    expect(wordsOf(answer, 'vary')).toContain('origin')
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    expect(answer.headers.get('x-request-id')).toMatch(/./)
  })

  test.each([
    ['GET', '/users', 200, {}],
    ['GET', '/users', 200, { accept: 'application/x-ndjson' }],
    ['GET', '/users/999999', 404, {}],
    ['GET', '/users?limit=0', 400, {}],
    ['POST', '/users', 415, { 'content-type': 'text/plain' }],
    ['DELETE', '/users', 405, {}],
    ['GET', '/nowhere', 404, {}],
    ['GET', '/livez', 200, {}],
    ['GET', '/openapi.json', 200, {}],
    ['GET', '/users', 200, { accept: 'text/html' }],
  ])('a page reads the answer to %s %s, %i, %j, and its headers', async (method, path, status, headers) => {
    // Where node-server says what went wrong.
    const complaints = vi.spyOn(console, 'error')
    const answer = await fetch(api.url + path, { method, headers: { ...headers, origin: APP } })
    expect(answer.status).toBe(status)
    expect(answer.headers.get('access-control-allow-origin')).toBe(APP)
    for (const name of ['etag', 'location', 'link', 'retry-after', 'x-request-id', 'ratelimit'])
      expect(wordsOf(answer, 'access-control-expose-headers')).toContain(name)
    expect(answer.headers.get('access-control-allow-credentials')).toBe(null)
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    expect(await answer.text()).toBeDefined()
    expect(complaints).not.toHaveBeenCalled()
  })

  test('one that a page creates is told by ETag and Location as ever', async () => {
    const user = { username: 'cors', email: 'cors@example.com' }
    const answer = await api.request('POST', '/users', user, { 'content-type': 'application/json', origin: APP })
    expect([answer.status, answer.headers.get('etag')]).toEqual([201, '"1"'])
    expect(answer.headers.get('location')).toBe(`/users/${answer.body.id}`)
  })

  test('another origin, null or none gets no leave, and caches are told that it depends', async () => {
    for (const origin of [OTHER, 'null', `${APP}.evil.example`, 'http://app.example', `${APP}:444`, undefined]) {
      const answer = await fetch(`${api.url}/users`, { headers: origin ? { origin } : {} })
      expect([answer.status, answer.headers.get('access-control-allow-origin')], origin).toEqual([200, null])
      expect(wordsOf(answer, 'vary')).toEqual(['accept', 'origin'])
    }
    expect((await preflight('/users', 'POST', OTHER)).headers.get('access-control-allow-origin')).toBe(null)
  })

  test('OPTIONS that is no preflight still says what a path supports', async () => {
    const answer = await fetch(`${api.url}/users`, { method: 'OPTIONS', headers: { origin: APP } })
    expect([answer.status, answer.headers.get('allow')]).toEqual([204, 'GET, HEAD, OPTIONS, POST'])
  })

  test('a page needs no token to ask, which does not count, and reads why it was refused', async () => {
    const issuer = await startIssuer()
    onTestFinished(issuer.close)
    const env = { DATABASE_URL: api.database?.url ?? '', CORS_ORIGINS: APP, RATE_LIMIT: '2/600', ...issuer.env }
    const strict = await startApi(env)
    onTestFinished(() => strict.close())
    const headers = { origin: APP, authorization: `Bearer ${await issuer.sign({ scope: 'users:read' })}` }
    const statuses: number[] = []
    const get = async (path: string, more: Record<string, string>) => {
      const answer = await fetch(strict.url + path, { headers: more })
      statuses.push(answer.status)
      expect(answer.headers.get('access-control-allow-origin')).toBe(APP)
      expect(wordsOf(answer, 'vary')).toContain('origin')
      return answer
    }
    // /openapi.json took one from the quota of this address.
    for (let i = 0; i < 3; i++) expect((await preflight('/users', 'POST', APP, strict)).status).toBe(204)
    const refused = await get('/users', { origin: APP })
    expect(refused.headers.get('www-authenticate')).toMatch(/^Bearer /)
    expect(wordsOf(refused, 'access-control-expose-headers')).toContain('www-authenticate')
    const { id } = (await api.request('POST', '/users', { username: 'seen', email: 'seen@example.com' })).body
    await get(`/users/${id}`, { ...headers, 'if-none-match': '"1"' })
    await get('/users?limit=0', headers)
    expect((await get('/users', headers)).headers.get('retry-after')).toMatch(/^\d+$/)
    expect(statuses).toEqual([401, 304, 400, 429])
  })

  test('the program reads it from its environment', async () => {
    const service = await serve({ DATABASE_URL: api.database?.url ?? '', CORS_ORIGINS: APP })
    const answer = await fetch(`${service.url}/livez`, { headers: { origin: APP } })
    expect(answer.headers.get('access-control-allow-origin')).toBe(APP)
    await service.stop()
  })
})
