import { createMiddleware } from 'hono/factory'
import type { Env } from './env.ts'

/** Gives a request that has arrived as a whole `deadlineMs` for all that it needs of the database. */
export const requestDeadline = (deadlineMs: number) =>
  createMiddleware<Env>(function requestDeadline(c, next) {
    c.set('until', performance.now() + deadlineMs)
    return next()
  })
