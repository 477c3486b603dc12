import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Api, problemIn, startApi } from '../../test/api.ts'
import { type TestDatabase, waitingForLock } from '../../test/database.ts'
import { events, underWay } from '../events.ts'

let api: Api
beforeAll(async () => {
  api = await startApi({ HEADERS_TIMEOUT_MS: '300', REQUEST_TIMEOUT_MS: '600' })
})
afterAll(() => api.close())

test.each([
  ['headers over 16 KB', 431, `GET /users HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(17_000)}\r\n\r\n`],
  // Or the last ones, such as those of a proxy, would not be seen.
  ['more than 1000 headers', 431, `GET /users HTTP/1.1\r\nHost: a\r\n${'X:\r\n'.repeat(1000)}\r\n`],
  ['1000 headers with two Host lines', 400, `GET /users HTTP/1.1\r\nHost: a\r\n${'X:\r\n'.repeat(998)}Host: b\r\n\r\n`],
  ['a target over 16 KB', 431, `GET /${'x'.repeat(17_000)} HTTP/1.1\r\nHost: a\r\n\r\n`],
  [
    'Content-Length and Transfer-Encoding',
    400,
    'POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  ],
  ['two Content-Lengths', 400, 'POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd'],
  ['a bare line feed', 400, 'GET /users HTTP/1.1\nHost: a\n\n'],
  ['no Host', 400, 'GET /users HTTP/1.1\r\nConnection: close\r\n\r\n'],
  ['two Host lines', 400, 'GET /users HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n'],
  ['the same Host twice', 400, 'GET /users HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n'],
  ['a Host that no URL can hold', 400, 'GET /users HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n'],
  ['a method that the parser does not know', 400, 'FROB /users HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a target with a backslash', 400, 'GET /users\\..\\x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
  ['a target of another server', 400, 'GET http://b/users HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
  ['no HTTP at all', 400, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
  ['a target that is no path', 400, 'OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['raw UTF-8 in the target', 400, 'GET /users?username=\u00fc HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a % that encodes nothing', 400, 'GET /users?username=100% HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['percent-encoded Latin-1', 400, 'GET /users?username=%FC HTTP/1.1\r\nHost: a\r\n\r\n'],
  [
    'a coding before chunked',
    400,
    'POST /users HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
  ],
  ['a coding without chunked', 400, 'POST /users HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n'],
  [
    'Transfer-Encoding in HTTP/1.0',
    400,
    'POST /users HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  ],
  ['headers that do not end', 408, 'GET /users HTTP/1.1\r\nHost: a\r\n'],
  [
    'a body that does not end',
    408,
    'POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{',
  ],
])('%s: %i', async (_, status, bytes) => {
  const answer = await api.raw(bytes)
  expect(problemIn(answer).status).toBe(status)
  expect(answer).toMatch(/^connection: close\r$/im)
})

test.each([
  ['GET /users\\x HTTP/1.1', 'Host: a'],
  ['GET /users HTTP/1.1', 'Host: a/b'],
  ['GET /users HTTP/1.1', 'Host: a@b'],
  ['GET /users HTTP/1.1', 'Host: a?'],
  ['GET /users HTTP/1.1', 'Host: '],
  ['GET http://a/users HTTP/1.1', 'Host: a'],
  ['GET /users HTTP/1.1', 'Host: 1.2.3.4.5:80'],
])('%s with %s is refused under the id of the request', async (line, host) => {
  const answer = await api.raw(`${line}\r\n${host}\r\nX-Request-Id: mine\r\n\r\n`)
  expect(problemIn(answer)).toMatchObject({ status: 400, requestId: 'mine' })
})

test.each(['a', 'A.example:443', '127.0.0.1:3000', '[::1]:3000', 'xn--mnchen-3ya.example', 'users_api'])(
  'the Host %s is served',
  async (host) => {
    const answer = await api.raw(`GET /livez?a=%C3%BC HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 200 /)
  },
)

test('raw UTF-8 in the target is answered with what to do', async () => {
  const answer = await api.raw(Buffer.from('GET /users?username=Jos\u00e9 HTTP/1.1\r\nHost: a\r\n\r\n'))
  expect(problemIn(answer).detail).toContain('percent-encoded as UTF-8')
})

test('CONNECT ends the connection', async () => {
  expect(await api.raw('CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n')).toBe('')
})

test('an expectation that is unknown is ignored', async () => {
  const answer = await api.raw('GET /livez HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nConnection: close\r\n\r\n')
  expect(answer).toMatch(/^HTTP\/1\.1 200 /)
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

test('garbage after two whole requests takes the place of neither answer', async () => {
  const answers = await api.raw(
    'GET /users HTTP/1.1\r\nHost: a\r\n\r\nGET /users HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\r\n\r\n',
  )
  expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200'])
})

test('garbage after an answer is refused', async () => {
  const socket = connect(api.port, '127.0.0.1').setEncoding('utf8')
  let answers = ''
  socket.on('data', (text) => (answers += text))
  socket.write('GET /livez HTTP/1.1\r\nHost: a\r\n\r\n')
  await expect.poll(() => answers).toContain('{"status":"ok"}')
  answers = ''
  socket.write('GARBAGE\r\n\r\n')
  await once(socket, 'close')
  expect(problemIn(answers).status).toBe(400)
})

test('a body that breaks its own framing is refused', async () => {
  const answers = await api.raw(
    'POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nxyz\r\n',
  )
  expect(problemIn(answers).status).toBe(400)
})

test('a request that follows on the same connection is served after one that the app refused', async () => {
  const answers = await api.raw(
    'GET /users/abc HTTP/1.1\r\nHost: a\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
  )
  expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 400', 'HTTP/1.1 200'])
})

describe('requests that are sent at once', () => {
  const get = (id: number, more = '') => `GET /users?limit=1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: ${id}\r\n${more}\r\n`
  const post = (name: string) => {
    const body = JSON.stringify({ username: name, email: `${name}@example.com` })
    return `POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
  }

  test('are carried out one after another, and answered in their order', async () => {
    let most = 0
    const count = () => (most = Math.max(most, underWay.requests))
    events.on('answered', count)
    onTestFinished(() => void events.off('answered', count))
    const ids = Array.from({ length: 17 }, (_, id) => id)
    const answers = await api.raw(ids.map((id) => get(id, id === 16 ? 'Connection: close\r\n' : '')).join(''))
    expect(answers.match(/HTTP\/1\.1 200 /g)).toHaveLength(17)
    expect(Array.from(answers.matchAll(/^x-request-id: (.+)\r$/gim), ([, id]) => Number(id))).toEqual(ids)
    // The one that is answered is over.
    expect(most).toBe(0)
  })

  test('are too many if more than 16 wait: the connection ends', async () => {
    expect(await api.raw(get(1).repeat(1000))).toBe('')
    expect(await api.raw(get(1, 'Connection: close\r\n'))).toMatch(/^HTTP\/1\.1 200 /)
  })

  test('are not carried out once their client has hung up before their turn', async () => {
    const database = api.database as TestDatabase
    const socket = connect(api.port, '127.0.0.1')
    await database.sql.begin(async (transaction) => {
      await transaction`lock table users in share mode`
      socket.write(post('first') + post('second'))
      await waitingForLock(database, 1)
      socket.destroy()
      await once(socket, 'close')
      // After this answer the service has noticed.
      await api.request('GET', '/livez')
    })
    const names = async () =>
      (await database.sql`select username from users where username in ('first', 'second', 'third')`).map(
        ({ username }) => username,
      )
    await expect.poll(names).toEqual(['first'])
    expect((await api.request('POST', '/users', { username: 'third', email: 'third@example.com' })).status).toBe(201)
    expect(await names()).toEqual(['first', 'third'])
  })
})
