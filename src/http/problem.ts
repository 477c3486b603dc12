import { STATUS_CODES } from 'node:http'
import type { Context, ErrorHandler, NotFoundHandler } from 'hono'
import { HTTPException } from 'hono/http-exception'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import * as z from 'zod'
import { DatabaseUnavailable } from '../db/unavailable.ts'
import { answer, escapeLineEnds } from './answer.ts'
import type { Env } from './env.ts'

/** The names of problems that a program may want to tell apart although their status is the same. */
export const ProblemType = {
  validation: 'urn:problem-type:validation',
  conflict: 'urn:problem-type:conflict',
  idempotencyKeyReused: 'urn:problem-type:idempotency-key-reused',
} as const

/** Problem details (RFC 9457): what every error's body holds. Made when it is to be described, for a start need not wait. */
export const problemDetails = () =>
  z
    .object({
      type: z
        .enum(['about:blank', ...Object.values(ProblemType)])
        .meta({ description: 'about:blank where the status says it all, else a name that programs can rely on.' }),
      title: z.string(),
      status: z.int().min(400).max(599),
      detail: z.string(),
      instance: z.string().meta({ format: 'uri-reference', description: 'The path of the request.' }),
      requestId: z.string().meta({ description: 'The same as in the X-Request-Id header and in the log.' }),
      errors: z
        .array(
          z.object({
            pointer: z.string().meta({ format: 'json-pointer', description: 'A JSON Pointer (RFC 6901).' }),
            detail: z.string(),
          }),
        )
        .optional(),
    })
    .meta({ description: 'Problem details (RFC 9457).' })
export type ProblemDetails = z.output<ReturnType<typeof problemDetails>>

export type ProblemOptions = {
  type?: (typeof ProblemType)[keyof typeof ProblemType]
  errors?: ProblemDetails['errors']
  headers?: Record<string, string>
}

/** Thrown anywhere under the app to answer with problem details. */
export class Problem extends Error {
  readonly status: ContentfulStatusCode
  readonly options: ProblemOptions

  constructor(status: ContentfulStatusCode, detail: string, options: ProblemOptions = {}) {
    super(detail)
    this.status = status
    this.options = options
  }
}

/** The names of statuses as RFC 9110 has them: Node has older ones for two. */
export const TITLES: typeof STATUS_CODES = { ...STATUS_CODES, 413: 'Content Too Large', 422: 'Unprocessable Content' }

export const PROBLEM_MEDIA_TYPE = 'application/problem+json'
export const PROBLEM_HEADERS = { 'Content-Type': PROBLEM_MEDIA_TYPE, 'Cache-Control': 'no-store' }

/**
 * The path of a URL, or of a request's target, as a URI reference that can lead nowhere else (RFC 9457, section 3.1.5);
 * empty where there is none.
 */
const instanceOf = (target: string | undefined) =>
  ((target && URL.parse(target, 'http://localhost')?.pathname) || '')
    .replace(/^\/+/, '/')
    .replace(/[[\]|^]|%(?![\da-f]{2})/gi, encodeURIComponent)

/** The body of a problem, as text. */
export function problemJson(problem: Problem, target: string | undefined, requestId: string): string {
  const { status, message: detail, options } = problem
  const { type = 'about:blank', errors } = options
  const title = TITLES[status] ?? 'Error'
  const body: ProblemDetails = { type, title, status, detail, instance: instanceOf(target), requestId, errors }
  return escapeLineEnds(JSON.stringify(body))
}

/** 503 that asks to come back in a second: the database or this process cannot take the request now. */
export const unavailableProblem = (detail: string) => new Problem(503, detail, { headers: { 'Retry-After': '1' } })

export const INTERNAL = new Problem(500, "Internal error. The server's log has details under this requestId.")

/** What a client may know of an error; the log has what it may not. */
export function problemFor(error: Error, c: Context<Env>): Problem {
  if (error instanceof Problem) return error
  if (error instanceof HTTPException) return new Problem(error.status, error.message)
  const entry = { err: error, requestId: c.get('requestId'), method: c.req.method, path: c.req.path }
  if (error instanceof DatabaseUnavailable) {
    c.get('log').debug(entry, 'database unavailable')
    return unavailableProblem(
      error.reached === 'lost' && !['GET', 'HEAD'].includes(c.req.method)
        ? 'The connection to the database was lost: a change may have been made or not. Repeat it; a POST, with its Idempotency-Key.'
        : 'The database cannot take this request now.',
    )
  }
  c.get('log').error(entry, 'request failed')
  return INTERNAL
}

export const onError: ErrorHandler<Env> = (error, c) => {
  const problem = problemFor(error, c)
  const body = problemJson(problem, c.req.url, c.get('requestId'))
  return answer(c, body, problem.status, { ...PROBLEM_HEADERS, ...problem.options.headers })
}

export const notFound: NotFoundHandler<Env> = ({ req: { path } }) => {
  const hint = path.length > 1 && path.endsWith('/') ? ` No path ends in a slash: try ${path.slice(0, -1)}.` : ''
  throw new Problem(404, `There is nothing here.${hint}`)
}
