import { Hono } from 'hono'
import type { Logger } from 'pino'
import { openApi } from './http/docs.ts'
import type { Env } from './http/env.ts'
import { health } from './http/health.ts'
import { limitRequests, receiveBody } from './http/limits.ts'
import { requestLog } from './http/log.ts'
import { answerOtherMethods } from './http/methods.ts'
import { notFound, onError } from './http/problem.ts'
import { userComponents, userPaths, userSchemas } from './users/openapi.ts'
import { userRoutes } from './users/routes.ts'
import { PATCH_MEDIA_TYPES } from './users/schemas.ts'
import type { UserStore } from './users/store.ts'

export type AppOptions = {
  users: UserStore
  log: Logger
  /** Asks the database; rejects when it does not answer. */
  ping(): Promise<void>
  /** Aborted when this process is about to stop. */
  stopping: AbortSignal
  maxBodyBytes: number
  maxRequests: number
  maxStreams: number
}

/** The service without a socket: what `fetch` answers to each request. */
export function createApp({ users, log, ping, stopping, maxBodyBytes, maxRequests, maxStreams }: AppOptions) {
  const app = new Hono<Env>()
    .use(requestLog(log))
    .route('/', health({ ping, draining: () => stopping.aborted }))
    .route('/', openApi({ paths: userPaths, schemas: userSchemas, components: userComponents }))
    .on(['POST', 'PUT', 'PATCH'], '/*', receiveBody(maxBodyBytes))
    .use(limitRequests(maxRequests))
    .route('/users', userRoutes(users, { maxStreams }))
  answerOtherMethods(app, PATCH_MEDIA_TYPES)
  app.onError(onError)
  app.notFound(notFound)
  return app
}

export type AppType = ReturnType<typeof createApp>
