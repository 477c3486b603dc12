import { randomUUID } from 'node:crypto'
import type { HttpBindings } from '@hono/node-server'
import type { SpanContext } from '@opentelemetry/api'
import type { Context } from 'hono'
import { routePath } from 'hono/route'
import type { Logger } from 'pino'

/** Whom a token names. */
export type Identity = {
  /** Whose token it is. Another issuer may call somebody else the same. */
  issuer: string
  subject: string
  /** The subject as people know it: by the email address, if the token has one. */
  person: string
}

/** What every handler finds in its context. */
export type Env = {
  Bindings: HttpBindings
  Variables: {
    requestId: string
    /** Not of this request alone: `logLine` adds what names it. */
    log: Logger
    /** Unset where nobody has to log in. */
    identity?: Identity
    /** Its deadline, a time of performance.now(). */
    until: number
    /** The bytes of the body, where the method has one. */
    body: Buffer
  }
}

/** The template of the path, such as `/users/:id`; empty where no route has it. So there are only as many as routes. */
export function routeOf(c: Context): string {
  const path = routePath(c, -1)
  return path.includes('*') ? '' : path
}

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

/** The method, or `_OTHER`, as OpenTelemetry calls what a server does not know. */
export const methodOf = ({ req: { method } }: Context) => (METHODS.includes(method) ? method : '_OTHER')

/** What an X-Request-Id may be. */
const REQUEST_ID = /^[\w.:+/=-]{1,128}$/

/** The caller's `X-Request-Id` where it can stand in a log as it is, else a new one. */
export const requestIdOf = (given = ''): string => (REQUEST_ID.test(given) ? given : randomUUID())

/** Version 00 has these four parts, a later one may have more. Zeros and version ff are invalid. */
const TRACEPARENT = /^(?!ff|00.{54})[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(?:-|$)/

/** What a `traceparent` header says; undefined for one that is not valid (W3C Trace Context, section 3.2). */
export function parseTraceparent(header = ''): SpanContext | undefined {
  const [, traceId, spanId, flags = ''] = TRACEPARENT.exec(header) ?? []
  return traceId && spanId ? { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true } : undefined
}
