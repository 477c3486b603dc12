import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Api, startApi } from '../test/api.ts'

let api: Api
beforeAll(async () => {
  api = await startApi({ HEADERS_TIMEOUT_MS: '300', REQUEST_TIMEOUT_MS: '600', IDLE_TIMEOUT_MS: '1500' })
})
afterAll(() => api.close())

/** The problem in a raw answer. */
function problem(answer: string) {
  const [head = '', body = ''] = answer.split('\r\n\r\n')
  expect(head).toMatch(/^content-type: application\/problem\+json$/im)
  const id = /^x-request-id: (.+)$/im.exec(head)?.[1]
  const parsed = JSON.parse(body)
  expect(parsed).toMatchObject({ type: 'about:blank', status: Number(head.split(' ')[1]), requestId: id })
  expect(parsed.title.length).toBeGreaterThan(3)
  return parsed as { status: number; detail: string }
}

describe('what the HTTP parser refuses is a problem, too', () => {
  test.each([
    ['headers over 16 KB', 431, `GET /users HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(17_000)}\r\n\r\n`],
    ['a target over 16 KB', 431, `GET /${'x'.repeat(17_000)} HTTP/1.1\r\nHost: a\r\n\r\n`],
    [
      'Content-Length and Transfer-Encoding',
      400,
      'POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'two Content-Lengths',
      400,
      'POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd',
    ],
    ['a bare line feed', 400, 'GET /users HTTP/1.1\nHost: a\n\n'],
    ['no Host', 400, 'GET /users HTTP/1.1\r\nConnection: close\r\n\r\n'],
    ['two Host lines', 400, 'GET /users HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n'],
    ['the same Host twice', 400, 'GET /users HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n'],
    ['a Host that no URL can hold', 400, 'GET /users HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n'],
    ['a method that the parser does not know', 400, 'FROB /users HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['a target with a backslash', 400, 'GET /users\\..\\x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
    ['a target of another server', 400, 'GET http://b/users HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
    ['no HTTP at all', 400, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
    ['CONNECT', 405, 'CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n'],
    ['an expectation', 417, 'GET /users HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nConnection: close\r\n\r\n'],
    ['headers that do not end', 408, 'GET /users HTTP/1.1\r\nHost: a\r\n'],
    [
      'a body that does not end',
      408,
      'POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{',
    ],
  ])('%s: %i', async (_, status, bytes) => {
    expect(problem(await api.raw(bytes)).status).toBe(status)
  })

  test('HTTP/1.0 needs no Host', async () => {
    expect(await api.raw('GET /livez HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /)
  })

  test('garbage after a whole request does not take the place of its answer, which is the last', async () => {
    const body = JSON.stringify({ username: 'followed', email: 'followed@example.com' })
    const answers = await api.raw(
      `POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}GARBAGE\r\n\r\n`,
    )
    expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 201'])
    expect(answers).toMatch(/^connection: close\r$/im)
  })

  test('a body that breaks its own framing is refused', async () => {
    const answers = await api.raw(
      'POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nxyz\r\n',
    )
    expect(problem(answers).status).toBe(400)
  })

  test('a request that follows on the same connection is served after one that the app refused', async () => {
    const answers = await api.raw(
      'GET /users/abc HTTP/1.1\r\nHost: a\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
    )
    expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 400', 'HTTP/1.1 200'])
  })
})

describe('methods', () => {
  test.each([
    ['/users', 'GET, HEAD, OPTIONS, POST'],
    ['/users/1', 'DELETE, GET, HEAD, OPTIONS, PATCH, PUT'],
    ['/livez', 'GET, HEAD, OPTIONS'],
    ['/openapi.json', 'GET, HEAD, OPTIONS'],
  ])('%s allows %s', async (path, allow) => {
    const options = await api.request('OPTIONS', path)
    expect([options.status, options.headers.get('allow')]).toEqual([204, allow])
    const other = await api.request('PROPFIND', path)
    expect([other.status, other.headers.get('allow')]).toEqual([405, allow])
    const trace = await api.raw(`TRACE ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
    expect(problem(trace).status).toBe(405)
    expect(trace).toContain(`Allow: ${allow}`)
  })

  test.each(['/', '/nothing', '/users/', '/users/1/x', '//users'])('%s is not found', async (path) => {
    expect((await api.request('GET', path)).status).toBe(404)
  })
})

describe('request ids', () => {
  test('takes the one of the caller, and says it in the answer and in problems', async () => {
    const { headers, body } = await api.request('GET', '/users/abc', undefined, { 'x-request-id': 'trace-1:2.3' })
    expect([headers.get('x-request-id'), body.requestId]).toEqual(['trace-1:2.3', 'trace-1:2.3'])
    expect(body.instance).toBe('/users/abc')
  })

  test.each(['', 'a b', '{"x":1}', 'x'.repeat(129), 'é'])('makes one in place of %j', async (given) => {
    const { headers } = await api.request('GET', '/livez', undefined, { 'x-request-id': given })
    expect(headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  })
})

describe('slow and silent clients', () => {
  test('one that never reads is cut, and the others are served meanwhile', async () => {
    const socket = connect(api.port, '127.0.0.1')
    socket.on('error', () => {})
    socket.pause()
    const request = 'GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n'
    const flood = setInterval(() => socket.write(request.repeat(100)), 5)
    const gone = new Promise((resolve) => socket.once('close', resolve))
    expect((await api.request('GET', '/livez')).status).toBe(200)
    await sleep(100)
    expect((await api.request('GET', '/livez')).status).toBe(200)
    setTimeout(() => clearInterval(flood), 1000)
    setTimeout(() => socket.resume(), 5000)
    await gone
  })

  test('one that sends a byte now and then is told that it is too slow, and cut', async () => {
    // Half open: it goes on sending after our end.
    const socket = connect({ port: api.port, host: '127.0.0.1', allowHalfOpen: true }).setEncoding('utf8')
    let answer = ''
    socket.on('data', (text) => (answer += text)).on('error', () => {})
    const bytes = [...'GET /users HTTP/1.1\r\nHost: a-host-with-a-long-name\r\nX-Header: more and more\r\n\r\n']
    const drip = setInterval(() => socket.write(bytes.shift() ?? ''), 50)
    await new Promise((resolve) => socket.once('close', resolve))
    clearInterval(drip)
    expect(problem(answer).status).toBe(408)
    expect(bytes.length).toBeGreaterThan(0)
  })

  test('a request that was answered 408 is not carried out when its body comes after all', async () => {
    const socket = connect({ port: api.port, host: '127.0.0.1', allowHalfOpen: true }).setEncoding('utf8')
    let answer = ''
    socket.on('data', (text) => (answer += text)).on('error', () => {})
    const body = JSON.stringify({ username: 'toolate', email: 'toolate@example.com' })
    socket.write(
      `POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, 5)}`,
    )
    await expect.poll(() => answer, { timeout: 5000 }).toMatch(/^HTTP\/1\.1 408 /)
    socket.write(body.slice(5))
    await sleep(300)
    socket.destroy()
    expect((await api.request('GET', '/users?username=toolate')).body.users).toEqual([])
  })

  test('one that resets after CONNECT, or holds its end open, does no harm', async () => {
    for (let i = 0; i < 10; i++) {
      const socket = connect(api.port, '127.0.0.1')
      socket.on('error', () => {})
      await once(socket, 'connect')
      socket.write('CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n')
      setImmediate(() => socket.resetAndDestroy())
    }
    const open = connect({ port: api.port, host: '127.0.0.1', allowHalfOpen: true })
    open.on('error', () => {}).resume()
    open.write('CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n')
    await once(open, 'end')
    const drip = setInterval(() => open.write('x'), 20)
    await new Promise((resolve) => open.once('close', resolve))
    clearInterval(drip)
    expect((await api.request('GET', '/livez')).status).toBe(200)
  })

  test('one that hangs up half-way does not disturb the others', async () => {
    for (let i = 0; i < 20; i++) {
      const socket = connect(api.port, '127.0.0.1')
      socket.on('error', () => {})
      const length = i % 2 === 0 ? 'Content-Length: 100\r\n\r\n' : 'Transfer-Encoding: chunked\r\n\r\n64\r\n'
      socket.write(`POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n${length}{"user`)
      await once(socket, 'connect')
      socket.destroy()
    }
    expect((await api.request('GET', '/users')).status).toBe(200)
  })
})
