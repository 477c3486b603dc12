import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Api, problemIn, startApi } from '../../test/api.ts'

let api: Api
beforeAll(async () => {
  api = await startApi()
})
afterAll(() => api.close())

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
