import { assets } from './http/assets.ts'
import { type BaseOptions, baseApp, finishApp } from './http/base.ts'
import { docs } from './http/docs.ts'
import { openApi } from './http/openapi.ts'
import { errorForEither, leadTo } from './http/page.ts'
import { userPage } from './users/page.ts'
import { userRoutes } from './users/routes.ts'
import { describeUsers } from './users/schemas.ts'
import type { UserStore } from './users/store.ts'

export type AppOptions = BaseOptions & {
  users: UserStore
  /** Streams of all rows of a resource at a time. */
  maxStreams: number
  /** Whether people get pages at /users. */
  page: boolean
}

/** The service without a socket: what `fetch` answers to each request. */
export function createApp(options: AppOptions) {
  const base = baseApp(options)
  // Not part of the API, so not of its type. It comes first: of the paths that both have, it takes what asks for HTML.
  base
    .route('/', assets())
    .route('/', docs())
    .all('/', leadTo(options.page ? '/users' : '/docs'))
  if (options.page) base.route('/', userPage(options.users))
  const app = finishApp(
    base
      .route('/', openApi({ ...options, resources: [describeUsers] }))
      .route('/users', userRoutes(options.users, options)),
  )
  return options.page ? app.onError(errorForEither) : app
}

export type AppType = ReturnType<typeof createApp>
