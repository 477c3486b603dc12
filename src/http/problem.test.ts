import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Api, problemIn, startApi } from '../../test/api.ts'
import type { UserStore } from '../users/store.ts'

const SECRET = 'relation "users" does not exist at select 1, postgres.js:1'
const fails = async () => {
  throw new Error(SECRET)
}
const time = '2026-01-02T03:04:05.678Z'
const row = { id: 1, username: 'Alice', email: 'alice@example.com', createdAt: time, updatedAt: time }
const store: UserStore = {
  get: fails,
  list: fails,
  listByName: fails,
  create: fails,
  update: fails,
  remove: fails,
  async *stream() {
    yield [row]
    await fails()
  },
}

let api: Api
let log = ''
beforeAll(async () => {
  const lines = {
    write(line: string) {
      log += line
    },
  }
  api = await startApi({}, { users: store, log: pino({}, lines) })
})
afterAll(() => api.close())

describe('an unexpected error', () => {
  const user = { username: 'a', email: 'a@example.com' }
  test.each([
    ['GET', '/users', undefined],
    ['GET', '/users/1', undefined],
    ['POST', '/users', user],
    ['PUT', '/users/1', user],
    ['PATCH', '/users/1', user],
    ['DELETE', '/users/1', undefined],
  ])('in %s %s is a 500 that tells nothing of it, and the log has it under the same id', async (method, path, body) => {
    const answer = await api.request(method, path, body)
    expect([answer.status, answer.headers.get('cache-control')]).toEqual([500, 'no-store'])
    expect(answer.body).toEqual({
      type: 'about:blank',
      title: 'Internal Server Error',
      status: 500,
      detail: expect.stringContaining('requestId'),
      instance: path,
      requestId: answer.headers.get('x-request-id'),
    })
    const entry = log.split('\n').find((line) => line.includes(answer.body.requestId))
    expect(entry).toContain('problem.test.ts')
    expect(log).not.toContain(SECRET.slice(0, 20))
  })

  test('amid a stream is a whole problem as its last line', async () => {
    const { text, headers } = await api.request('GET', '/users', undefined, { accept: 'application/x-ndjson' })
    const [first, last = ''] = text.trimEnd().split('\n')
    expect(first).toBe(JSON.stringify(row))
    expect(JSON.parse(last)).toEqual({
      type: 'about:blank',
      title: 'Internal Server Error',
      status: 500,
      detail: expect.not.stringContaining('users'),
      instance: '/users',
      requestId: headers.get('x-request-id'),
    })
  })
})

test.each([
  ['/a%20b', '/a%20b'],
  ['/"<%22%0d%0a%00', '/%22%3C%22%0d%0a%00'],
  ['//evil.example/x', '/evil.example/x'],
  ['/%zz', '/%25zz'],
  ['/[|]^', '/%5B%7C%5D%5E'],
  ['/users/abc?username=secret', '/users/abc'],
])('the instance of a problem at %s is %s', async (target, instance) => {
  const answer = await api.raw(`GET ${target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
  expect(problemIn(answer)).toMatchObject({ instance })
})

test('the instance of what is refused before the app is a path, too', async () => {
  const answer = await api.raw('GET //evil.example/x?secret HTTP/1.1\r\n\r\n')
  expect(problemIn(answer)).toMatchObject({ status: 400, instance: expect.stringMatching(/^\/(evil.example\/)?x$/) })
  expect(problemIn(await api.raw('nonsense\r\n\r\n'))).toMatchObject({ status: 400, instance: '' })
})

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
  expect(problemIn(trace).status).toBe(405)
  expect(trace).toContain(`Allow: ${allow}`)
})

test.each([
  ['/nothing', 'There is nothing here.'],
  ['/users/', 'There is nothing here. No path ends in a slash: try /users.'],
  ['/users/1/', 'There is nothing here. No path ends in a slash: try /users/1.'],
  ['/users/1/x', 'There is nothing here.'],
  ['//users', 'There is nothing here.'],
])('%s is not found: %s', async (path, detail) => {
  const { status, body } = await api.request('GET', path)
  expect([status, body.detail]).toEqual([404, detail])
})
