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
  return createMiddleware<Env>(async function requestLog(c, next) {
    const requestId = requestIdOf(c.req.header('x-request-id'))
    c.set('requestId', requestId)
    c.set('log', log)
    if (!accessLog) return next()
    const start = performance.now()
    await next()
    const ms = Math.round(performance.now() - start)
    const { method, path } = c.req
    log.debug({ requestId, method, path, status: c.res.status, ms }, 'request')
  })
}
