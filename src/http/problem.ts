import { STATUS_CODES } from 'node:http'
import type { Context, ErrorHandler } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { DatabaseUnavailable } from '../db/unavailable.ts'
import { events, type Refusal } from '../events.ts'
import { answer, escapeLineEnds } from './answer.ts'
import type { Env } from './env.ts'
import { describeError, logLine } from './log.ts'

export type ProblemOptions = {
  /** Lets programs tell problems of one status apart. It ends their `type`. */
  type?: 'validation' | 'conflict' | 'idempotency-key-reused'
  /** Where a body is at fault. Each pointer is a JSON Pointer (RFC 6901). */
  errors?: { pointer: string; detail: string }[]
  /** The type of a problem that others have defined, and what it adds to the body. */
  members?: { type: string; 'violated-policies': string[] }
  headers?: Record<string, string>
}

/** Thrown anywhere under the app to answer with problem details. */
export class Problem extends HTTPException {
  readonly options: ProblemOptions

  constructor(status: HTTPException['status'], detail: string, options: ProblemOptions = {}) {
    super(status, { message: detail })
    this.options = options
  }
}

/** The names of statuses as RFC 9110 has them: Node has older ones for two. */
export const TITLES: typeof STATUS_CODES = { ...STATUS_CODES, 413: 'Content Too Large', 422: 'Unprocessable Content' }

export const PROBLEM_HEADERS = { 'Content-Type': 'application/problem+json', 'Cache-Control': 'no-store' }

/**
 * The path of a URL, or of a request's target, as a URI reference that can lead nowhere else (RFC 9457, section 3.1.5);
 * empty where there is none.
 */
const instanceOf = (target: string | undefined) =>
  ((target && URL.parse(target, 'http://localhost')?.pathname) || '')
    .replace(/^\/+/, '/')
    .replace(/[[\]|^]|%(?![\da-f]{2})/gi, encodeURIComponent)

/** Problem details (RFC 9457), as JSON: what every error's body holds. `openapi.json` has their schema. */
export function problemJson(problem: Problem, target: string | undefined, requestId: string): string {
  const { status, message: detail, options } = problem
  const type = options.type ? `urn:problem-type:${options.type}` : 'about:blank'
  const title = TITLES[status] ?? 'Error'
  const body = { type, title, status, detail, instance: instanceOf(target), requestId, errors: options.errors }
  return escapeLineEnds(JSON.stringify({ ...body, ...options.members }))
}

/** Refuses a request, which the metrics count: 503 that asks to come back, in a second if nothing else is said. */
export function refuse(why: Refusal, detail = 'The database cannot take this request now.', seconds = 1): Problem {
  events.emit('refused', why)
  return new Problem(503, detail, { headers: { 'Retry-After': String(seconds) } })
}

const LOST =
  'The connection to the database was lost: a change may have been made or not. Repeat it: a POST with its Idempotency-Key, one of lines with onConflict=skip.'
export const INTERNAL = new Problem(500, "Internal error. The server's log has details under this requestId.")

/** What a client may know of an error; the log has what it may not. */
export function problemFor(error: Error, c: Context<Env>): Problem {
  if (error instanceof Problem) return error
  if (error instanceof HTTPException) return new Problem(error.status, error.message)
  const entry = { error: describeError(error) }
  if (error instanceof DatabaseUnavailable) {
    logLine(c, 'warn', entry, 'request failed: database unavailable')
    const mayHaveChanged = error.reached === 'lost' && !['GET', 'HEAD'].includes(c.req.method)
    return refuse('database', mayHaveChanged ? LOST : undefined)
  }
  logLine(c, 'error', entry, 'request failed')
  return INTERNAL
}

export const onError: ErrorHandler<Env> = (error, c) => {
  const problem = problemFor(error, c)
  const body = problemJson(problem, c.req.url, c.get('requestId'))
  return answer(c, body, problem.status, { ...PROBLEM_HEADERS, ...problem.options.headers })
}
