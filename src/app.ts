import { Hono } from 'hono'
import type { Logger } from 'pino'
import { requestDeadline } from './http/deadline.ts'
import { openApi } from './http/docs.ts'
import type { Env } from './http/env.ts'
import { health } from './http/health.ts'
import { limitRequests, receiveBody } from './http/limits.ts'
import { requestLog } from './http/log.ts'
import { answerOtherMethods } from './http/methods.ts'
import { notFound, onError } from './http/problem.ts'
import { userComponents, userPaths, userSchemas } from './users/openapi.ts'
import { userRoutes } from './users/routes.ts'
import type { UserStore } from './users/store.ts'

export type AppOptions = {
  users: UserStore
  log: Logger
  /** Resolves when requests can be served, as far as the database is concerned; rejects with DatabaseUnavailable. */
  ready(): Promise<void>
  /** Aborted when this process is about to stop. */
  stopping: AbortSignal
  /** What each request has for all that it needs of the database, in ms. */
  deadlineMs: number
  maxBodyBytes: number
  maxRequests: number
  maxStreams: number
}

/** The service without a socket: what `fetch` answers to each request. */
export function createApp(options: AppOptions) {
  const { users, log, ready, stopping, deadlineMs, maxBodyBytes, maxRequests, maxStreams } = options
  const app = new Hono<Env>()
    .use(requestLog(log))
    .route('/', health({ ready, draining: () => stopping.aborted }))
    .route('/', openApi({ paths: userPaths, schemas: userSchemas, components: userComponents }))
    .on(['POST', 'PUT', 'PATCH'], '/*', receiveBody(maxBodyBytes))
    .use(limitRequests(maxRequests))
    .use(requestDeadline(deadlineMs))
    .route('/users', userRoutes(users, { maxStreams }))
  answerOtherMethods(app)
  app.onError(onError)
  app.notFound(notFound)
  return app
}

export type AppType = ReturnType<typeof createApp>
