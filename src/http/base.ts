import { Hono, type MiddlewareHandler, type Schema } from 'hono'
import { json } from './answer.ts'
import { type Auth, authorize, identify } from './auth.ts'
import type { Env } from './env.ts'
import { limitRequests, receiveBody } from './limits.ts'
import { type RequestLogOptions, requestLog } from './log.ts'
import { answerOtherMethods } from './methods.ts'
import { errorPage, wantsHtml } from './page.ts'
import { notFound, onError, refuse } from './problem.ts'

export type BaseOptions = RequestLogOptions & {
  /** Makes spans of requests, around all that they pass. */
  trace?: MiddlewareHandler<Env> | undefined
  /** Verifies tokens; undefined where nobody needs one. */
  auth?: Auth | undefined
  /** Limits how many requests a client may send. */
  limitRate?: MiddlewareHandler<Env> | undefined
  /** Lets pages of other origins use the API. */
  cors?: MiddlewareHandler<Env> | undefined
  /** Resolves when requests can be served, as far as the database is concerned; rejects with DatabaseUnavailable. */
  ready(): Promise<void>
  /** Aborted when this process is about to stop. */
  stopping: AbortSignal
  /** What each request has for all that it needs of the database, in ms. */
  deadlineMs: number
  maxBodyBytes: number
  maxRequests: number
}

/**
 * What every request passes before it comes to a resource. Before that, `/livez` for "restart me", and `/readyz` for
 * "send me requests": only the second asks the database, or its failure would restart every pod.
 */
export function baseApp({ trace, cors, auth, limitRate, ready, stopping, ...options }: BaseOptions) {
  const { deadlineMs, maxBodyBytes, maxRequests } = options
  const app = new Hono<Env>()
    .use(...(trace ? [trace] : []), requestLog(options), ...(cors ? [cors] : []))
    .get('/livez', (c) => json(c, { status: 'ok' }, 200))
    .get('/readyz', async (c) => {
      if (stopping.aborted) throw refuse('stopping', 'This process is stopping.')
      await ready()
      return json(c, { status: 'ok' }, 200)
    })
  // Before the body: nothing more of a stranger's request is read. A request counts, whether its token is good or not.
  if (auth) app.use(identify(auth))
  if (limitRate) app.use(limitRate)
  if (auth) app.use(authorize)
  return app.on(['POST', 'PUT', 'PATCH'], '/*', receiveBody(maxBodyBytes)).use(limitRequests(maxRequests, deadlineMs))
}

/** Answers what no resource does: other methods, other paths, and errors, which a person gets as a page. */
export function finishApp<S extends Schema>(app: Hono<Env, S>): Hono<Env, S> {
  answerOtherMethods(app)
  app.onError(async (error, c) => {
    if (!wantsHtml(c)) return onError(error, c)
    try {
      return await errorPage(error, c)
    } catch (fault) {
      // A page needs files, which an install may have lost.
      return onError(fault as Error, c)
    }
  })
  return app.notFound(notFound)
}
