import { expect, test } from 'vitest'
import { parseTraceparent } from './trace-context.ts'

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
