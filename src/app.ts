import type { Logger } from 'pino'
import type { Pool } from './db/pool.ts'
import { createReadiness } from './db/readiness.ts'
import { answer } from './http/answer.ts'
import { type BaseOptions, baseApp, finishApp } from './http/base.ts'
import { docs } from './http/docs.ts'
import { describeError } from './http/log.ts'
import { openApi } from './http/openapi.ts'
import { userForms } from './users/page.ts'
import { userRoutes } from './users/routes.ts'
import { describeUsers } from './users/schemas.ts'
import { createUserStore } from './users/store.ts'
import { users } from './users/table.ts'

export type AppOptions = BaseOptions & ReturnType<typeof fromDatabase>

/** What the app has of the database: the stores of its resources, and whether their tables are there. */
export const fromDatabase = (db: Pool, log: Logger) => ({
  users: createUserStore(db),
  ready: createReadiness(db, [users], (reason) =>
    log.error(describeError(reason), 'the database is not of this release: run `migrate`'),
  ),
})

/** The service without a socket: what `fetch` answers to each request. */
export async function createApp(options: AppOptions) {
  const base = await baseApp(options)
  const start = options.PAGE === 'on' ? '/users' : '/docs'
  // Not part of the API, so not of its type.
  base.route('/', docs()).get('/', (c) => answer(c, null, 302, { Location: start }))
  if (options.PAGE === 'on') base.route('/users', userForms(options.users))
  const app = base.route('/', openApi({ ...options, resources: [describeUsers] }))
  return finishApp(app.route('/users', userRoutes(options.users, options)))
}

export type AppType = Awaited<ReturnType<typeof createApp>>
