import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Api, startApi } from '../../test/api.ts'
import { parseTraceparent } from './env.ts'

let api: Api
beforeAll(async () => {
  api = await startApi()
})
afterAll(() => api.close())

describe('the id of a request', () => {
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

describe('a traceparent', () => {
  const [TRACE_ID, SPAN_ID] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331']

  test.each([
    [`00-${TRACE_ID}-${SPAN_ID}-01`, 1],
    [`00-${TRACE_ID}-${SPAN_ID}-00`, 0],
    [`cc-${TRACE_ID}-${SPAN_ID}-03`, 3],
    [`cc-${TRACE_ID}-${SPAN_ID}-01-more`, 1],
  ])('%s is taken', (header, traceFlags) => {
    expect(parseTraceparent(header)).toEqual({ traceId: TRACE_ID, spanId: SPAN_ID, traceFlags, isRemote: true })
  })

  test.each([
    '',
    'nonsense',
    `00-${TRACE_ID}-${SPAN_ID}`,
    `00-${TRACE_ID}-${SPAN_ID}-01-more`,
    `00-${TRACE_ID}-${SPAN_ID}-01.`,
    `00-${TRACE_ID}-${SPAN_ID}-1`,
    `cc-${TRACE_ID}-${SPAN_ID}-01more`,
    `ff-${TRACE_ID}-${SPAN_ID}-01`,
    `00-${'0'.repeat(32)}-${SPAN_ID}-01`,
    `00-${TRACE_ID}-${'0'.repeat(16)}-01`,
    `00-${TRACE_ID.toUpperCase()}-${SPAN_ID}-01`,
    `00-alice@example.com-${SPAN_ID}-01`,
  ])('"%s" is not taken', (header) => {
    expect(parseTraceparent(header)).toBeUndefined()
  })
})
