import type { IncomingMessage } from 'node:http'
import { createMiddleware } from 'hono/factory'
import { type Limited, underWay } from '../events.ts'
import type { Env } from './env.ts'
import { Problem, refuse } from './problem.ts'
import { postsLines } from './validate.ts'

/** Bodies up to the limit of headers are not counted: every connection may hold one. */
const SMALL_BODY_BYTES = 16 * 1024
/** Larger bodies, and those of unknown length, that arrive at a time: each may take twice as much memory as a body may have. */
const LARGE_BODIES_MAX = 64
/** How long a body that is too large is read and dropped before the answer: at once, a client that still sends would meet a reset. */
const DROP_MS = 1000

/** Runs what it is given while fewer than `max` others run in this process, else throws a 503. */
export async function limited<T>(what: Limited, max: number, run: () => Promise<T>, detail?: string): Promise<T> {
  if (underWay[what] >= max) throw refuse(what, detail ?? `Too many ${what} are under way.`)
  underWay[what]++
  try {
    return await run()
  } finally {
    underWay[what]--
  }
}

export const truncated = new Problem(400, 'The body ended before it was complete.')
const compressed = new Problem(415, 'The body must not be compressed.', { headers: { 'Accept-Encoding': 'identity' } })

export const bodyTooLarge = (maxBytes: number) => new Problem(413, `The body must have at most ${maxBytes} bytes.`)

/** Tells a client that asked first to send its body. One of HTTP/1.0 knows no 100 Continue (RFC 9110, section 10.1.1). */
export function tellToSend({ incoming, outgoing }: Env['Bindings']) {
  if (incoming.headers.expect && incoming.httpVersion !== '1.0') outgoing.writeContinue()
}

/** @throws Problem 415 for a body that is compressed */
export function assertPlain({ headers }: IncomingMessage) {
  if ((headers['content-encoding'] ?? 'identity').toLowerCase() !== 'identity') throw compressed
}

/** The body, once all of it has come. Rejects with a 413 if it has more than `maxBytes`. */
const receive = (incoming: IncomingMessage, maxBytes: number) =>
  new Promise<Buffer>((resolve, reject) => {
    let body: Buffer = Buffer.alloc(0)
    let size = 0
    incoming.on('data', (chunk: Buffer) => {
      const end = size + chunk.length
      if (size <= maxBytes && end > maxBytes) setTimeout(reject, DROP_MS, bodyTooLarge(maxBytes))
      // Into one buffer that grows: sent a byte at a time, a body in parts takes a hundred times its size.
      if (end > body.length && end <= maxBytes) body = size === 0 ? chunk : Buffer.concat([body], 2 * end)
      if (size > 0) chunk.copy(body, size)
      size = end
    })
    incoming.on('end', () => (size > maxBytes ? reject(bodyTooLarge(maxBytes)) : resolve(body.subarray(0, size))))
    incoming.on('close', () => reject(truncated))
  })

/**
 * Receives the body, for Hono's own ways to read it: 413 if it has more than `maxBytes`, whether it says its length or
 * not, 415 if it is compressed, and 503 with too many large ones on their way. A request whose body dawdles takes no
 * place of those that can be answered. Lines are left to `createEachLine`.
 */
export const receiveBody = (maxBytes: number) =>
  createMiddleware<Env>(async function receiveBody(c, next) {
    if (postsLines(c)) return next()
    const { incoming } = c.env
    const bytes = incoming.headers['transfer-encoding'] ? maxBytes : Number(incoming.headers['content-length'] ?? 0)
    if (incoming.headers.expect && bytes > maxBytes) throw bodyTooLarge(maxBytes)
    tellToSend(c.env)
    const received = () => receive(incoming, maxBytes)
    const body = await (bytes > SMALL_BODY_BYTES ? limited('bodies', LARGE_BODIES_MAX, received) : received())
    assertPlain(incoming)
    c.set('body', body)
    // Where node-server looks for a body that has been read already.
    Object.assign(incoming, { rawBody: body })
    await next()
  })

/**
 * 503 at once for what comes while `max` requests are under way: a queue without end helps nobody. The others have
 * `deadlineMs` for all that they need of the database.
 */
export const limitRequests = (max: number, deadlineMs: number) =>
  createMiddleware<Env>(function limitRequests(c, next) {
    c.set('until', performance.now() + deadlineMs)
    return limited('requests', max, next)
  })
