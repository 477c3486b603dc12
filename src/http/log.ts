import { fstatSync } from 'node:fs'
import { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Context, Next } from 'hono'
import { createMiddleware } from 'hono/factory'
import { type Logger, pino } from 'pino'
import sonicBoom from 'sonic-boom'
import type { Env } from './env.ts'
import { requestIdOf } from './request-id.ts'

const STDOUT = 1

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const

/** Lines that wait to be written, in bytes. What comes beyond that is lost. */
const WAITING_BYTES = 1024 * 1024
/** How long a process that ends waits for its last lines to be written. */
const END_TIMEOUT_MS = 500

/** Standard output, written in the background: a full disk or a reader that has stopped holds up nothing. */
export function openOutput() {
  const stat = fstatSync(STDOUT)
  // A socket on a pipe lets writes to it fail when it is full. Otherwise they wait, and the process could not end.
  if (stat.isFIFO() || stat.isSocket()) new Socket({ fd: STDOUT, readable: false, writable: true }).unref()
  const output = new sonicBoom.SonicBoom({ fd: STDOUT, sync: false, maxLength: WAITING_BYTES })
  // The next line is another attempt.
  return output.on('error', () => {})
}

/** Waits until the lines are written, but not for long. Nothing can be written afterwards. */
export async function endOutput(output: ReturnType<typeof openOutput>) {
  const closed = new Promise((resolve) => output.once('close', resolve))
  output.end()
  await Promise.race([closed, sleep(END_TIMEOUT_MS)])
}

/** JSON lines, one an event. Lines that are lost are counted, and told of as soon as writing works again. */
export function createLog(level: (typeof LOG_LEVELS)[number], output = openOutput()): Logger {
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    output,
  )
  let lost = 0
  output.on('drop', () => lost++)
  output.on('drain', () => {
    if (lost > 0) log.warn({ lines: lost }, 'lines of the log were lost')
    lost = 0
  })
  return log
}

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
