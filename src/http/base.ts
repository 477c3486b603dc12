import { Hono, type Schema } from 'hono'
import type { Logger } from 'pino'
import type { Config } from '../config.ts'
import type { Env } from './env.ts'
import { health } from './health.ts'
import { limitRequests, receiveBody } from './limits.ts'
import { requestLog } from './log.ts'
import { answerOtherMethods } from './methods.ts'
import { notFound, onError } from './problem.ts'

export type BaseOptions = Config['app'] & {
  log: Logger
  /** Resolves when requests can be served, as far as the database is concerned; rejects with DatabaseUnavailable. */
  ready(): Promise<void>
  /** Aborted when this process is about to stop. */
  stopping: AbortSignal
}

/** What every request passes before it comes to a resource. */
export const baseApp = ({ log, ready, stopping, deadlineMs, maxBodyBytes, maxRequests }: BaseOptions) =>
  new Hono<Env>()
    .use(requestLog(log))
    .route('/', health({ ready, stopping }))
    .on(['POST', 'PUT', 'PATCH'], '/*', receiveBody(maxBodyBytes))
    .use(limitRequests(maxRequests, deadlineMs))

/** Answers what no resource does: other methods, other paths, and errors. */
export function finishApp<S extends Schema>(app: Hono<Env, S>): Hono<Env, S> {
  answerOtherMethods(app)
  return app.onError(onError).notFound(notFound)
}
