import type { Context, Next } from 'hono'
import { createMiddleware } from 'hono/factory'
import { type Logger, pino } from 'pino'
import type { Env } from './env.ts'
import { requestIdOf } from './request-id.ts'

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const

/** JSON lines on standard output, one an event. */
export const createLog = (level: (typeof LOG_LEVELS)[number]): Logger =>
  pino({
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  })

/** Gives each request its id and its log. At level debug each request is a line. */
export function requestLog(log: Logger) {
  const accessLog = log.isLevelEnabled('debug')
  return createMiddleware<Env>(function requestLog(c, next) {
    c.set('requestId', requestIdOf(c.req.header('x-request-id')))
    c.set('log', log)
    return accessLog ? logged(c, next) : next()
  })
}

async function logged(c: Context<Env>, next: Next) {
  const start = performance.now()
  await next()
  const ms = Math.round(performance.now() - start)
  const { method, path } = c.req
  c.get('log').debug({ requestId: c.get('requestId'), method, path, status: c.res.status, ms }, 'request')
}
