import type { Env as AnyEnv, Hono, Schema } from 'hono'
import { answer } from './answer.ts'
import type { Env } from './env.ts'
import { Problem } from './problem.ts'

/**
 * Answers OPTIONS, with `Accept-Patch` where there is PATCH (RFC 5789), and 405 with `Allow` to every method that a
 * path of `app` does not have (RFC 9110, section 15.5.6).
 */
export function answerOtherMethods<S extends Schema>(app: Hono<Env & AnyEnv, S>, patchMediaTypes: readonly string[]) {
  const methods = Map.groupBy(
    app.routes.filter(({ method, path }) => method !== 'ALL' && !path.includes('*')),
    ({ path }) => path,
  )
  for (const [path, routes] of methods) {
    const own = new Set(routes.map(({ method }) => method))
    if (own.has('GET')) own.add('HEAD')
    const Allow = [...own.add('OPTIONS')].sort().join(', ')
    const options = { Allow, ...(own.has('PATCH') && { 'Accept-Patch': patchMediaTypes.join(', ') }) }
    app.all(path, (c) => {
      if (c.req.method === 'OPTIONS') return answer(c, null, 204, options)
      throw new Problem(405, `This path supports ${Allow}.`, { headers: { Allow } })
    })
  }
}
