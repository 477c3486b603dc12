import type { Env as AnyEnv, Hono, Schema } from 'hono'
import { answer } from './answer.ts'
import type { Env } from './env.ts'
import { Problem } from './problem.ts'

/** Answers OPTIONS, and 405 with `Allow` to every method that a path of `app` does not have (RFC 9110, section 15.5.6). */
export function answerOtherMethods<S extends Schema>(app: Hono<Env & AnyEnv, S>) {
  const routes = app.routes.filter(({ method, path }) => method !== 'ALL' && !path.includes('*'))
  for (const [path, own] of Map.groupBy(routes, (route) => route.path)) {
    const methods = own.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))
    const Allow = [...new Set([...methods, 'OPTIONS'])].sort().join(', ')
    app.all(path, (c) => {
      if (c.req.method === 'OPTIONS') return answer(c, null, 204, { Allow })
      throw new Problem(405, `This path supports ${Allow}.`, { headers: { Allow } })
    })
  }
}
