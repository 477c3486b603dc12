import type { MiddlewareHandler } from 'hono'
import { cors } from 'hono/cors'
import type { Env } from './env.ts'

const REQUEST_HEADERS =
  'Authorization Cache-Control Content-Type Idempotency-Key If-Match If-None-Match X-Request-Id traceparent tracestate'
const ANSWER_HEADERS = 'ETag Link Location Retry-After X-Request-Id RateLimit RateLimit-Policy WWW-Authenticate'

/** Lets pages of these origins use the API, without cookies (Fetch standard, section 3.3). */
export function createCors(origin: string[]): MiddlewareHandler<Env> {
  const [allowHeaders, exposeHeaders] = [REQUEST_HEADERS.split(' '), ANSWER_HEADERS.split(' ')]
  const allow = cors({ origin, allowHeaders, exposeHeaders, maxAge: 600 })
  return (c, next) => {
    // Any other OPTIONS asks for `Allow`.
    if (c.req.method === 'OPTIONS' && !c.req.header('access-control-request-method')) return next()
    c.header('X-Request-Id', c.get('requestId'))
    c.header('X-Content-Type-Options', 'nosniff')
    return allow(c, next)
  }
}
