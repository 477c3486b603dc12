import { type Context, Hono, type MiddlewareHandler, type Schema } from 'hono'
import type { Logger } from 'pino'
import type { Config } from '../config.ts'
import { answer, json } from './answer.ts'
import { authenticate } from './auth.ts'
import { createCors } from './cors.ts'
import type { Env } from './env.ts'
import { limitRequests, receiveBody } from './limits.ts'
import { requestLog } from './log.ts'
import { errorPage, wantsHtml } from './page.ts'
import { onError, Problem, refuse } from './problem.ts'
import { limitRate } from './rate-limit.ts'

export type BaseOptions = Config & {
  log: Logger
  /** Makes spans of requests, around all that they pass. */
  trace?: MiddlewareHandler<Env> | undefined
  /** Resolves when requests can be served, as far as the database is concerned; rejects with DatabaseUnavailable. */
  ready(): Promise<void>
  /** Aborted when this process is about to stop. */
  stopping: AbortSignal
}

/**
 * What every request passes before it comes to a resource. Before that, `/livez` for "restart me", and `/readyz` for
 * "send me requests": only the second asks the database, or its failure would restart every pod. What verifies tokens is
 * loaded only if they are taken: a start does not pay for it.
 */
export async function baseApp(options: BaseOptions) {
  const { log, trace, ready, stopping, CORS_ORIGINS, RATE_LIMIT: rate, TRUSTED_PROXIES: proxies } = options
  const base = new Hono<Env>()
  if (trace) base.use(trace)
  base.use(requestLog(options))
  if (CORS_ORIGINS) base.use(createCors(CORS_ORIGINS))
  const app = base
    .get('/livez', (c) => json(c, { status: 'ok' }, 200))
    .get('/readyz', async (c) => {
      if (stopping.aborted) throw refuse('stopping', 'This process is stopping.')
      await ready()
      return json(c, { status: 'ok' }, 200)
    })
  const tellOfKeys = (issuer: string, reason?: string) =>
    reason ? log.warn({ issuer, reason }, 'keys unavailable') : log.info({ issuer }, 'keys available')
  // Before the body: nothing more of a stranger's request is read.
  const auth = options.auth && (await import('../auth/verifier.ts')).createAuth(options.auth, tellOfKeys)
  const limiter = rate ? limitRate({ rate, proxies }) : undefined
  if (auth) app.use(authenticate(auth, limiter))
  else if (limiter) app.use(limiter)
  return app
    .on(['POST', 'PUT', 'PATCH'], '/*', receiveBody(options.MAX_BODY_BYTES))
    .use(limitRequests(options.MAX_REQUESTS, options.deadlineMs))
}

/**
 * Answers what no resource does: OPTIONS, and 405 with `Allow` to every method that a path does not have (RFC 9110, section
 * 15.5.6), other paths, and errors, which a person gets as a page.
 */
export function finishApp<S extends Schema>(app: Hono<Env, S>): Hono<Env, S> {
  const routes = app.routes.filter(({ method, path }) => method !== 'ALL' && !path.includes('*'))
  for (const [path, own] of Map.groupBy(routes, (route) => route.path)) {
    const methods = own.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))
    const Allow = [...new Set([...methods, 'OPTIONS'])].sort().join(', ')
    app.all(path, (c) => {
      if (c.req.method === 'OPTIONS') return answer(c, null, 204, { Allow })
      throw new Problem(405, `This path supports ${Allow}.`, { headers: { Allow } })
    })
  }
  // A page needs files, which an install may have lost.
  const asPage = (error: Error, c: Context<Env>) => errorPage(error, c).catch((fault) => onError(fault, c))
  app.onError((error, c) => (wantsHtml(c) ? asPage(error, c) : onError(error, c)))
  return app.notFound(({ req: { path } }) => {
    const hint = path.length > 1 && path.endsWith('/') ? ` No path ends in a slash: try ${path.slice(0, -1)}.` : ''
    throw new Problem(404, `There is nothing here.${hint}`)
  })
}
