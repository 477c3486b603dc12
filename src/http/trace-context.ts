import type { SpanContext } from '@opentelemetry/api'

/** Version 00 has these four parts, a later one may have more. Zeros and version ff are invalid. */
const TRACEPARENT = /^(?!ff|00.{54})[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(?:-|$)/

/** What a `traceparent` header says; undefined for one that is not valid (W3C Trace Context, section 3.2). */
export function parseTraceparent(header = ''): SpanContext | undefined {
  const [, traceId, spanId, flags = ''] = TRACEPARENT.exec(header) ?? []
  return traceId && spanId ? { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true } : undefined
}
