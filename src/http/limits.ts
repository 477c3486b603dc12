import type { Context, Next } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { createMiddleware } from 'hono/factory'
import type { Env } from './env.ts'
import { incompleteBody, Problem, unavailableProblem } from './problem.ts'

/** 413 for a body of more than `maxBytes`, whether it says its length or not. */
export function limitBody(maxBytes: number) {
  const tooLarge = (): never => {
    // The rest of the body is not read, so the connection cannot serve another request.
    throw new Problem(413, `The body must have at most ${maxBytes} bytes.`, { headers: { Connection: 'close' } })
  }
  const countBytes = bodyLimit({ maxSize: maxBytes, onError: tooLarge })
  async function counted(c: Context<Env>, next: Next) {
    let read = false
    try {
      return await countBytes(c, () => {
        read = true
        return next()
      })
    } catch (error) {
      if (read || error instanceof Problem) throw error
      throw incompleteBody()
    }
  }
  return createMiddleware<Env>(function limitBody(c, next) {
    // Counting what arrives costs more than all the rest of a small request: only where the length is not known.
    if (c.req.header('transfer-encoding') !== undefined) return counted(c, next)
    if (Number(c.req.header('content-length') ?? 0) > maxBytes) tooLarge()
    return next()
  })
}

/** 503 at once for what comes while `max` requests are under way: a queue without end helps nobody. */
export function limitRequests(max: number) {
  let underWay = 0
  return createMiddleware<Env>(async function limitRequests(_c, next) {
    if (underWay >= max) throw unavailableProblem('Too many requests are under way.')
    underWay++
    try {
      await next()
    } finally {
      underWay--
    }
  })
}
