import type { Context, MiddlewareHandler } from 'hono'
import { createMiddleware } from 'hono/factory'
import packageJson from '../../package.json' with { type: 'json' }
import type { createAuth, Verified } from '../auth/verifier.ts'
import type { Env } from './env.ts'
import { wantsHtml } from './page.ts'
import { Problem } from './problem.ts'

/** The scopes, and what verifies access tokens and assertions of Identity-Aware Proxy, where they are taken. */
export type Auth = ReturnType<typeof createAuth>

/** Why a token is not taken: a sentence that can stand in a header. */
export class TokenRefused extends Error {}

/** What strangers may ask for, besides the health paths: it tells nothing of data. */
const OPEN = /^\/(openapi\.json|docs|assets\/[^/]+\/[^/]+)$/
const BEARER = /^bearer(?: |$)/i
const READING = ['GET', 'HEAD', 'OPTIONS']

const NO_TOKEN = 'The request needs an access token: Authorization: Bearer.'
const NO_LOGIN = 'A browser sends no access token: this page needs a proxy in front of it that logs people in.'

/** Says which token would do (RFC 6750, section 3). */
function challenge(status: 401 | 403, scope: string, detail: string, error?: string): Problem {
  const said = { realm: packageJson.name, ...(error && { error, error_description: detail }), scope }
  const parameters = Object.entries(said).map(([name, value]) => `${name}="${value}"`)
  return new Problem(status, detail, { headers: { 'WWW-Authenticate': `Bearer ${parameters.join(', ')}` } })
}

/** Whom the token of a request names; undefined where it has none. A token of its own goes before that of a proxy. */
function identify(c: Context, { tokens, iap }: Auth) {
  const authorization = c.req.header('authorization') ?? ''
  if (tokens && BEARER.test(authorization)) return tokens(authorization.slice('bearer'.length).trim())
  const assertion = c.req.header('x-goog-iap-jwt-assertion')
  return iap && assertion !== undefined ? iap(assertion) : undefined
}

/**
 * Finds out whom a request comes from, and refuses it if it has to: 401 or 403. Before that `limitRate` counts it, whether its
 * token is good or not.
 */
export const authenticate = (auth: Auth, limitRate: MiddlewareHandler<Env> = (_, next) => next()) =>
  createMiddleware<Env>(function authenticate(c, next) {
    if (OPEN.test(c.req.path)) return limitRate(c, next)
    const scope = READING.includes(c.req.method) ? auth.readScope : auth.writeScope
    const deny = (reason: unknown) => limitRate(c, () => Promise.reject(reason))
    const refused = (error: unknown) =>
      deny(error instanceof TokenRefused ? challenge(401, scope, error.message, 'invalid_token') : error)
    function admit(identity?: Verified) {
      if (!identity) return deny(challenge(401, scope, wantsHtml(c) ? NO_LOGIN : NO_TOKEN))
      c.set('identity', identity)
      if (identity.scopes.includes(scope)) return limitRate(c, next)
      return deny(challenge(403, scope, `This needs the scope ${scope}.`, 'insufficient_scope'))
    }
    const identity = identify(c, auth)
    // One that is remembered is there at once, and the request goes on in the same turn.
    return identity instanceof Promise ? identity.then(admit, refused) : admit(identity)
  })
