import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Api, startApi } from '../../test/api.ts'

let api: Api
beforeAll(async () => {
  api = await startApi()
})
afterAll(() => api.close())

test('takes the one of the caller, and says it in the answer and in problems', async () => {
  const { headers, body } = await api.request('GET', '/users/abc', undefined, { 'x-request-id': 'trace-1:2.3' })
  expect([headers.get('x-request-id'), body.requestId]).toEqual(['trace-1:2.3', 'trace-1:2.3'])
  expect(body.instance).toBe('/users/abc')
})

test.each(['', 'a b', '{"x":1}', 'x'.repeat(129), 'é'])('makes one in place of %j', async (given) => {
  const { headers } = await api.request('GET', '/livez', undefined, { 'x-request-id': given })
  expect(headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
})
