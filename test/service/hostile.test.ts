// What a hostile client tries. What it does with slow and broken requests is in src/server.test.ts and
// src/http/listener.test.ts, with large bodies in src/http/limits.test.ts, with 100,000 random ones in test/long/fuzz.test.ts.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { events, type Refusal } from '../../src/events.ts'
import { type Api, startApi } from '../api.ts'
import { main } from '../process.ts'
import { logLines } from '../service.ts'

let api: Api
beforeAll(async () => {
  api = await startApi()
})
afterAll(() => api.close())

const LIVEZ = 'GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'
const BROWSER = { accept: 'text/html' }
const database = () => api.database ?? expect.fail('It has no database of its own.')

/** The answer to a short request; nothing where the connection is refused. */
const livez = (service: Api) => service.raw(LIVEZ).catch(() => '')

/** A service with other settings on the same database. */
async function start(env: Record<string, string>) {
  const other = await startApi({ DATABASE_URL: database().url, ...env })
  onTestFinished(() => other.close())
  return other
}

function open(port: number, onread?: { buffer: Buffer; callback(bytes: number): boolean }): Socket {
  const socket = connect({ port, host: '127.0.0.1', ...(onread && { onread }) })
  onTestFinished(() => void socket.destroy())
  return socket.on('error', () => {})
}

describe('connections', () => {
  test('beyond MAX_CONNECTIONS are closed at once and counted, and the others are served', async () => {
    const crowded = await start({ MAX_CONNECTIONS: '20' })
    const refused: Refusal[] = []
    const count = (why: Refusal) => refused.push(why)
    events.on('refused', count)
    onTestFinished(() => void events.off('refused', count))
    const [first, ...others] = Array.from({ length: 40 }, () => open(crowded.port))
    await Promise.all(others.slice(-20).map((socket) => once(socket, 'close')))
    expect(refused.length).toBeGreaterThanOrEqual(20)
    expect(new Set(refused)).toEqual(new Set(['connections']))
    let text = ''
    first?.setEncoding('utf8').on('data', (chunk) => (text += chunk))
    first?.write(LIVEZ)
    await expect.poll(() => text).toMatch(/^HTTP\/1\.1 200 /)
    for (const socket of others) socket.destroy()
    await expect.poll(() => livez(crowded)).toMatch(/^HTTP\/1\.1 200 /)
  })
})

describe('a client that reads', () => {
  const USERS = 2000
  beforeAll(async () => {
    await database().sql`insert into users (username, email)
      select i || repeat('😀', 70), i || repeat('x', 200) || '@example.com' from generate_series(1, ${USERS}) i`
  })

  test('a little now and then is cut all the same: its answers do not wait for it for ever', async () => {
    // One connection is the test's own, which stays open; one is the slow reader's.
    const slow = await start({ MAX_CONNECTIONS: '2', IDLE_TIMEOUT_MS: '2000', DEADLINE_MS: '2000' })
    const buffer = Buffer.alloc(65_536)
    const socket = open(slow.port, {
      buffer,
      callback() {
        // Often enough for Node, which cuts a client that takes nothing.
        setTimeout(() => socket.resume(), 100)
        return false
      },
    })
    await once(socket, 'connect')
    expect(await livez(slow)).toBe('')
    // More than the buffers of the sockets take.
    socket.write('GET /users?limit=1000 HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(17))
    await expect.poll(() => livez(slow), { timeout: 60_000 }).toMatch(/^HTTP\/1\.1 200 /)
  })

  test('steadily is never cut, however small the parts', async () => {
    const steady = await start({ IDLE_TIMEOUT_MS: '3000', DEADLINE_MS: '3000' })
    let read = 0
    let closed = false
    const buffer = Buffer.alloc(65_536)
    const request = 'GET /users?limit=1000 HTTP/1.1\r\nHost: a\r\n\r\n'
    const socket = open(steady.port, {
      buffer,
      callback(bytes) {
        read += bytes
        return true
      },
    })
    socket.on('close', () => (closed = true))
    for (const until = performance.now() + 7000; performance.now() < until; ) {
      const before = read
      socket.write(request)
      await expect.poll(() => read).toBeGreaterThan(before)
      await sleep(100)
    }
    expect(closed).toBe(false)
  })

  test('nothing of a stream is cut, and its place is free for others', async () => {
    const streaming = await start({ MAX_STREAMS: '1', IDLE_TIMEOUT_MS: '1000', DEADLINE_MS: '1000' })
    const { sql } = database()
    // More than the buffers of the sockets take.
    await sql`insert into users (username, email)
      select 'more ' || i || repeat('n', 60), 'more' || i || repeat('x', 50) || '@example.com' from generate_series(1, 50000) i`
    const socket = open(streaming.port)
    socket.write('GET /users HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\n\r\n')
    await once(socket, 'readable')
    const get = async () => {
      const controller = new AbortController()
      const headers = { accept: 'application/x-ndjson' }
      const { status } = await fetch(`${streaming.url}/users`, { headers, signal: controller.signal })
      controller.abort()
      return status
    }
    expect(await get()).toBe(503)
    await expect.poll(get, { timeout: 60_000 }).toBe(200)
  })
})

describe('a body', () => {
  const deep = (left: string, right: string, depth = 60_000) => left.repeat(depth) + right.repeat(depth)
  test.each([
    ['arrays in arrays', 422, deep('[', ']')],
    ['objects in objects', 422, `${'{"a":'.repeat(40_000)}1${'}'.repeat(40_000)}`],
    ['a member that is nested', 422, `{"username":${deep('[', ']')},"email":"a@b.example"}`],
    ['arrays that do not end', 400, '['.repeat(200_000)],
    ['a long number', 422, `{"username":1${'0'.repeat(200_000)}}`],
    ['__proto__', 422, '{"__proto__":{"username":"a","email":"a@b.example"}}'],
    ['constructor', 422, '{"constructor":{"prototype":{"username":"a"}},"username":"a","email":"a@b.example"}'],
    ['nothing but escapes', 422, `{"username":"${'\\u0041'.repeat(40_000)}","email":"a@b.example"}`],
  ])('of %s is answered %i', async (_, status, body) => {
    const answer = await api.request('POST', '/users', body, { 'content-type': 'application/json' })
    expect(answer.status).toBe(status)
    expect(answer.text.length).toBeLessThan(10_000)
    expect(Object.hasOwn(Object.prototype, 'username')).toBe(false)
  })
})

describe('a request within a request', () => {
  const INNER = 'GET /livez HTTP/1.1\r\nHost: inner\r\nX-Request-Id: inner\r\n\r\n'
  const post = (head: string, body: string) =>
    `POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n${head}\r\n\r\n${body}`
  const chunked = `0\r\n\r\n${INNER}`

  test.each([
    ['a space before the colon', post('Transfer-Encoding : chunked', chunked)],
    ['a tab before the colon', post('Transfer-Encoding\t: chunked', chunked)],
    ['a line that is folded', post('Transfer-Encoding:\r\n chunked', chunked)],
    ['two codings', post('Transfer-Encoding: chunked, identity', chunked)],
    ['a coding twice', post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked', chunked)],
    ['a coding that only looks like chunked', post('Transfer-Encoding: xchunked', chunked)],
    ['a vertical tab before the coding', post('Transfer-Encoding: \x0bchunked', chunked)],
    ['a coding in quotes', post('Transfer-Encoding: "chunked"', chunked)],
    ['a coding and a length', post(`Content-Length: ${chunked.length}\r\nTransfer-Encoding: chunked`, chunked)],
    ['a length with a sign', post('Content-Length: +2', `{}${INNER}`)],
    ['a negative length', post('Content-Length: -1', INNER)],
    ['a length in hexadecimal', post('Content-Length: 0x2', `{}${INNER}`)],
    ['a list of lengths', post('Content-Length: 2, 2', `{}${INNER}`)],
    ['two lengths', post('Content-Length: 2\r\nContent-Length: 60', `{}${INNER}`)],
    ['a length that is too long', post('Content-Length: 18446744073709551618', `{}${INNER}`)],
    ['a chunk with a sign', post('Transfer-Encoding: chunked', `+2\r\n{}\r\n${chunked}`)],
    ['a chunk in 0x', post('Transfer-Encoding: chunked', `0x2\r\n{}\r\n${chunked}`)],
    ['a chunk that is too long', post('Transfer-Encoding: chunked', `10000000000000002\r\n{}\r\n${chunked}`)],
    ['a chunk that ends in LF', post('Transfer-Encoding: chunked', `2\n{}\n${chunked}`)],
    ['a bare CR in a header', post('X: a\rTransfer-Encoding: chunked', chunked)],
    ['a NUL in a header', post('X: a\0b\r\nContent-Length: 2', `{}${INNER}`)],
    ['a header without a name', post(': chunked\r\nContent-Length: 2', `{}${INNER}`)],
    ['a header without a colon', post('Content-Length 60\r\nContent-Length: 2', `{}${INNER}`)],
  ])('by %s is not read: 400, and the connection ends', async (_, bytes) => {
    const answers = await api.raw(Buffer.from(bytes, 'latin1'))
    expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 400'])
    expect(answers).toMatch(/^connection: close\r$/im)
    expect(answers).not.toContain('inner')
  })

  test('that is the body of another, by any method, is its body and no more', async () => {
    for (const method of ['GET', 'DELETE', 'OPTIONS', 'POST']) {
      const first = `${method} /users/0 HTTP/1.1\r\nHost: a\r\nContent-Length: ${INNER.length}\r\n\r\n${INNER}`
      const answers = await api.raw(first + LIVEZ)
      expect(answers, method).not.toContain('inner')
      expect(answers.match(/HTTP\/1\.1 \d+/g)?.at(-1)).toBe('HTTP/1.1 200')
    }
  })
})

describe('a header of its own making', () => {
  const EVIL = 'evil.example'
  test('gets into no answer, no link and no page', async () => {
    const headers = [
      'Host: evil.example',
      `X-Forwarded-Host: ${EVIL}`,
      `Forwarded: host=${EVIL}`,
      `X-Original-URL: /${EVIL}`,
    ]
    headers.push(
      `X-Rewrite-URL: /${EVIL}`,
      `Origin: https://${EVIL}`,
      `Referer: https://${EVIL}`,
      `X-HTTP-Method-Override: DELETE`,
    )
    for (const accept of ['application/json', 'text/html']) {
      for (const path of [
        '/',
        '/users',
        '/users?limit=1',
        '/users/1',
        '/users/0',
        '/nothing',
        '/docs',
        '/openapi.json',
      ]) {
        const head = [`GET ${path} HTTP/1.1`, ...headers, `Accept: ${accept}`, 'Connection: close']
        const answer = await api.raw(`${head.join('\r\n')}\r\n\r\n`)
        expect(answer, path).toMatch(/^HTTP\/1\.1 [234]\d\d /)
        expect(answer.replace(/"instance":"[^"]*"/, ''), path).not.toContain(EVIL)
      }
    }
  })

  test.each([
    '/users%0d%0aX-Evil:%201',
    '/users/1%0d%0aX-Evil:%201',
    '/users?limit=1%0d%0aX-Evil:%201',
    '/users?cursor=%0d%0aX-Evil:%201',
    '/users?limit=1&limit=1%0aX-Evil:1',
    '/users/?a=%0d%0aX-Evil:%201',
    '/assets/%0d%0aX-Evil:%201/page.css',
    '/docs%E5%98%8A%E5%98%8DX-Evil:%201',
  ])('comes from no part of a path: %s', async (path) => {
    for (const accept of ['*/*', 'text/html']) {
      const [head = ''] = (
        await api.raw(`GET ${path} HTTP/1.1\r\nHost: a\r\nAccept: ${accept}\r\nConnection: close\r\n\r\n`)
      ).split('\r\n\r\n')
      expect(head).toMatch(/^HTTP\/1\.1 [234]\d\d /)
      expect(head).not.toMatch(/^x-evil/im)
    }
  })

  test('gets into no entry of a cache that others share: what holds users is private, and what fails is not kept', async () => {
    const { id } = (await api.request('POST', '/users', { username: 'cached', email: 'cached@example.com' })).body
    for (const path of [
      '/users?limit=2',
      `/users/${id}`,
      `/users/${id}/edit`,
      `/users/${id}/delete`,
      '/users?username=cached',
    ]) {
      for (const headers of [{}, BROWSER, { accept: 'application/x-ndjson' }, { authorization: 'Bearer x' }]) {
        const answer = await fetch(api.url + path, { headers })
        await answer.body?.cancel()
        expect(answer.headers.get('cache-control'), path).toMatch(/^(private, no-(cache|store)|no-store)$/)
      }
    }
    for (const path of ['/nothing', '/users/0', '/users?limit=0']) {
      expect((await api.request('GET', path)).headers.get('cache-control')).toBe('no-store')
    }
  })
})

describe('every answer', () => {
  test.each([
    ['GET', '/livez', {}],
    ['GET', '/readyz', {}],
    ['GET', '/', {}],
    ['GET', '/users?limit=1', {}],
    ['HEAD', '/users', {}],
    ['GET', '/users', BROWSER],
    ['GET', '/users?limit=0', BROWSER],
    ['GET', '/users', { accept: 'application/x-ndjson' }],
    ['GET', '/users/1', { 'if-none-match': '*' }],
    ['DELETE', '/users/999999999', {}],
    ['POST', '/users', {}],
    ['POST', '/users/new', BROWSER],
    ['OPTIONS', '/users', {}],
    ['GET', '/nothing', {}],
    ['GET', '/docs', {}],
    ['GET', '/assets/0/page.css', {}],
    ['GET', '/assets/0/nothing', {}],
    ['GET', '/openapi.json', {}],
  ])('to %s %s %j is what it says it is, and does not say what runs here', async (method, path, headers) => {
    const answer = await fetch(api.url + path, { method, headers, redirect: 'manual' })
    await answer.body?.cancel()
    expect(answer.status).toBeLessThan(500)
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    for (const name of ['server', 'x-powered-by', 'via']) expect(answer.headers.get(name)).toBe(null)
  })

  test.each([
    'GARBAGE\r\n\r\n',
    'GET /users HTTP/1.1\r\n\r\n',
    `GET /${'x'.repeat(17_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
  ])('to what the parser refuses, too: %.20s', async (bytes) =>
    expect(await api.raw(bytes)).toMatch(/^X-Content-Type-Options: nosniff\r$/im),
  )

  test("that is a page has Hono's secure headers", async () => {
    for (const path of ['/users', '/docs', '/users/0', '/users/new']) {
      const { headers } = await fetch(api.url + path, { headers: BROWSER })
      expect(Object.fromEntries(headers)).toMatchObject({
        'content-security-policy': expect.stringContaining("frame-ancestors 'none'"),
        'cross-origin-opener-policy': 'same-origin',
        'cross-origin-resource-policy': 'same-origin',
        'origin-agent-cluster': '?1',
        'referrer-policy': 'same-origin',
        'x-frame-options': 'DENY',
        'x-permitted-cross-domain-policies': 'none',
      })
    }
  })
})

describe('a path', () => {
  const get = (path: string) =>
    api.raw(`GET ${encodeURI(path).replaceAll('%25', '%')} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)

  test.each(['/users/../livez', '/users/%2e%2e/livez', '/./livez', '/%6civez', '/../../livez'])(
    'means its normal form (RFC 3986, section 6.2.2): %s',
    async (path) => expect(await get(path)).toMatch(/^HTTP\/1\.1 200 [\s\S]*"status":"ok"/),
  )

  test.each([
    ['/users/..%2flivez', 400],
    ['//livez', 404],
    ['/livez/', 404],
    ['/LIVEZ', 404],
    ['/livez;x=1', 404],
    ['/livez%00', 404],
    ['/livez%20', 404],
    ['/\uff4civez', 404],
    ['/users/1;x', 400],
    ['/users/1%00', 400],
    ['/users/\u0661', 400],
    ['/users/\uff11', 400],
    ['/users/1%2fedit', 400],
    ['/users/%c0%ae%c0%ae', 400],
    ['/assets/0/..%2f..%2fpackage.json', 404],
    ['/assets/0/%2e%2e%2f%2e%2e%2fpackage.json', 404],
    ['/assets/0/..%5c..%5cpackage.json', 404],
    ['/assets/0/page.css%00.js', 404],
    ['/assets/0/__proto__', 404],
    ['/assets/0/constructor', 404],
  ])('that only looks like another is not that: %s is answered %i', async (path, status) => {
    const answer = await get(path)
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    expect(answer).not.toContain('"version"')
  })
})

test('nothing that is sent makes a line of the log, or a command to a terminal', async () => {
  const MARK = 'forged'
  const forged = [`a%0a{"level":"fatal","msg":"${MARK}"}`, `%1b]0;${MARK}%07`, `${MARK}%E2%80%A8`]
  for (const LOG_FORMAT of ['json', 'pretty', 'google']) {
    const log = { LOG_FORMAT, LOG_REQUESTS: '1', LOG_LEVEL: 'trace' }
    const service = main(['serve'], {
      DATABASE_URL: database().url,
      PORT: '0',
      HOST: '127.0.0.1',
      DRAIN_DELAY_MS: '0',
      ...log,
    })
    const [, port] = await service.printed(/port"?[=:](\d+)/)
    const url = `http://127.0.0.1:${port}`
    for (const text of forged) {
      const plain = decodeURIComponent(text).replaceAll(/[^\x20-\x7e]/g, '\x9b')
      const headers = {
        'x-request-id': plain,
        traceparent: `00-${plain}`,
        'user-agent': plain,
        'idempotency-key': plain,
      }
      const path = encodeURI(text).replaceAll('%25', '%')
      await fetch(`${url}/${path}?username=${path}`, { headers })
      await fetch(`${url}/users/${path}`, { method: 'PUT', headers, body: plain })
      await fetch(`${url}/users`, { method: 'POST', headers, body: JSON.stringify({ username: text }) })
    }
    service.process.kill()
    await service.exited
    const output = service.output()
    expect(output).not.toContain(MARK)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for.
    expect(output).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]/)
    if (LOG_FORMAT === 'json') expect(logLines(output)).toHaveLength(output.trimEnd().split('\n').length)
    expect(output.trimEnd().split('\n').length).toBeGreaterThan(9)
  }
})
