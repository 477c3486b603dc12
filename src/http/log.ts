import { fstatSync } from 'node:fs'
import { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { isatty } from 'node:tty'
import type { SpanContext } from '@opentelemetry/api'
import type { Context } from 'hono'
import { createMiddleware } from 'hono/factory'
import { type Logger, pino } from 'pino'
import postgres from 'postgres'
import sonicBoom from 'sonic-boom'
import type { Config } from '../config.ts'
import { DatabaseUnavailable } from '../db/unavailable.ts'
import { events, requestSpans } from '../events.ts'
import { escapeLineEnds } from './answer.ts'
import { type Env, methodOf, parseTraceparent, requestIdOf, routeOf } from './env.ts'

const STDOUT = 1

/** Lines that may wait to be written, in bytes. What comes beyond that is lost, unless it must not be. */
const WAITING_BYTES = 1024 * 1024
/** How often lines that could not be written are tried again. */
const RETRY_INTERVAL_MS = 1000
/** How long a process that ends waits for its last lines to be written, at least. */
const END_TIMEOUT_MS = 500

/** Standard output, written in the background: a full disk or a reader that has stopped holds up nothing. */
export function openOutput() {
  const stat = fstatSync(STDOUT)
  // A socket on a pipe lets writes to it fail when it is full. Otherwise they wait, and the process could not end.
  if (stat.isFIFO() || stat.isSocket()) new Socket({ fd: STDOUT, readable: false, writable: true }).unref()
  // Without a least length it would not try again.
  const stream = new sonicBoom.SonicBoom({ fd: STDOUT, sync: false, minLength: 1, periodicFlush: RETRY_INTERVAL_MS })
  let waiting = 0
  let isEnding = false
  const closed = new Promise<boolean>((resolve) => stream.once('close', () => resolve(true)))
  stream.on('error', () => {}).on('write', (bytes: number) => (waiting -= bytes))
  return {
    /** Whether as much waits as may. */
    isFull: () => waiting > WAITING_BYTES,
    /** Writes a line, however many wait. */
    write(line: string) {
      waiting += Buffer.byteLength(line)
      stream.write(line)
    },
    onDrain: (listener: () => void) => stream.on('drain', listener),
    /** Waits until the lines are written, but not for long; tells whether they are. Nothing can be written afterwards. */
    end(timeoutMs = 0): Promise<boolean> {
      // A stream that is ending does not tell that all is written, and lines that were lost would never be told of.
      if (!isEnding) stream.once('drain', () => stream.end()).flush()
      isEnding = true
      return Promise.race([closed, sleep(Math.max(timeoutMs, END_TIMEOUT_MS), false)])
    },
  }
}

export type Output = ReturnType<typeof openOutput>

/** How Google Cloud names the levels that it has other names for. */
const SEVERITIES: Record<string, string> = { fatal: 'CRITICAL', warn: 'WARNING', trace: 'DEBUG' }

const GOOGLE = 'logging.googleapis.com'

/** The trace of a line, by the names of OpenTelemetry or of Google Cloud's structured logs. */
function traceFields({ traceId, spanId, traceFlags }: SpanContext, isGoogle: boolean): object {
  if (!isGoogle) return { trace_id: traceId, span_id: spanId, trace_flags: traceFlags }
  const isSampled = (traceFlags & 1) === 1
  return { [`${GOOGLE}/trace`]: traceId, [`${GOOGLE}/spanId`]: spanId, [`${GOOGLE}/trace_sampled`]: isSampled }
}

/** A line for a person: time, level and message first. */
function readable(line: string): string {
  const { time, level, msg, ...rest } = JSON.parse(line)
  const words = Object.entries(rest).map(([name, value]) => ` ${name}=${JSON.stringify(value)}`)
  return `${time.slice(11, 23)} ${level.toUpperCase().padEnd(5)} ${msg}${words.join('')}\n`
}

/** One line an event. Lines that are lost are counted, and told of as soon as writing works again. */
export function createLog({ LOG_LEVEL: level, LOG_FORMAT: format }: Config, output: Output): Logger {
  const isGoogle = format === 'google'
  const isReadable = format === 'pretty' || (format === 'auto' && isatty(STDOUT))
  let lost = 0
  const write = (line: string) =>
    output.isFull() ? lost++ : output.write(escapeLineEnds(isReadable ? readable(line) : line))
  const log = pino(
    {
      level,
      base: null,
      messageKey: isGoogle ? 'message' : 'msg',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: {
        level: (name) => (isGoogle ? { severity: SEVERITIES[name] ?? name.toUpperCase() } : { level: name }),
        log: ({ trace, ...rest }: { trace?: SpanContext }) => ({ ...rest, ...(trace && traceFields(trace, isGoogle)) }),
      },
    },
    { write },
  )
  output.onDrain(() => {
    if (lost > 0) log.warn({ lines: lost }, 'lines of the log were lost')
    lost = 0
  })
  return log
}

/** What names a request and its trace in a line, with nothing else that a client may choose freely. */
export function requestFields(c: Context<Env>) {
  const trace = requestSpans.getStore()?.[0]?.spanContext() ?? parseTraceparent(c.req.header('traceparent'))
  return { requestId: c.get('requestId'), method: methodOf(c), route: routeOf(c), trace }
}

/** Writes a line of a request. */
export function logLine(c: Context<Env>, level: 'info' | 'warn' | 'error', fields: object, message: string) {
  c.get('log')[level]({ ...requestFields(c), ...fields }, message)
}

/**
 * What the log may have of an error. The texts of PostgreSQL's errors, and of those that nobody expected, may hold what a
 * client sent.
 */
export function describeError(error: Error): object {
  const origin = error.cause instanceof postgres.PostgresError ? error.cause : error
  if (origin instanceof postgres.PostgresError) {
    const { code, routine, table_name: table, constraint_name: constraint } = origin
    return { code, routine, table, constraint }
  }
  if (error instanceof DatabaseUnavailable) return { reason: error.message }
  const stack = error.stack?.split('\n').filter((line) => /^ {4}at .+:\d+:\d+\)?$/.test(line))
  return { name: error.name, code: 'code' in error ? error.code : undefined, stack }
}

/** Gives each request its id and its log. Errors are logged where they are answered. */
export const requestLog = ({ log, SLOW_REQUEST_MS, LOG_REQUESTS }: Config & { log: Logger }) =>
  createMiddleware<Env>(async function requestLog(c, next) {
    const start = performance.now()
    c.set('requestId', requestIdOf(c.req.header('x-request-id')))
    c.set('log', log)
    await next()
    const ms = performance.now() - start
    events.emit('answered', c, ms)
    const fields = { status: c.res.status, ms: Math.round(ms) }
    if (SLOW_REQUEST_MS > 0 && ms >= SLOW_REQUEST_MS) logLine(c, 'warn', fields, 'slow request')
    else if (Math.random() < LOG_REQUESTS) logLine(c, 'info', fields, 'request')
  })
