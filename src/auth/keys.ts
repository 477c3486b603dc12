import { createLocalJWKSet, errors, type JWTVerifyGetKey } from 'jose'
import * as z from 'zod'
import { secureUrl, type TokenRules } from '../config.ts'
import { limited } from '../http/limits.ts'
import { refuse } from '../http/problem.ts'

/** After a load no token causes another one for so long. */
const COOL_DOWN_MS = 10_000
const RELOAD_INTERVAL_MS = 600_000
const LOAD_TIMEOUT_MS = 3000
/** Requests that wait for a load at a time: one connection can send any number, whose answers nobody has to take. */
const WAITING_MAX = 1000
const MAX_LENGTH = 256 * 1024

/** What tokens may be signed with: asymmetric algorithms alone (RFC 8725, section 3.1). */
export const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519']
/** The algorithm of a key that names none: each key has exactly one (RFC 8725, section 3.1). */
const ALGORITHM_OF: Record<string, string> = { RSA: 'RS256', EC: 'ES256', OKP: 'EdDSA' }

/** What is no key is left out (RFC 7517, section 5). */
const Key = z.looseObject({ kty: z.string(), alg: z.string().optional() }).catch({ kty: '' })
const KeySet = z.object({ keys: z.array(Key) })
const Description = z.object({ issuer: z.string(), jwks_uri: secureUrl() })

/** Called with the reason when an issuer's keys cannot be loaded, and without when they can be again. */
export type Tell = (issuer: string, failure?: string) => void

const UNAVAILABLE = 'The keys that tokens are verified with cannot be had now.'

async function fetchJson<T>(url: string, schema: z.ZodType<T>, signal: AbortSignal): Promise<T> {
  const { status, body } = await fetch(url, { signal, redirect: 'manual' })
  let text = ''
  for await (const part of body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += part
    if (text.length > MAX_LENGTH) throw new Error(`${url} has more than ${MAX_LENGTH} characters`)
  }
  if (status !== 200) throw new Error(`${url} answers ${status}`)
  const { data, success } = schema.safeParse(JSON.parse(text))
  if (!success) throw new Error(`${url} lacks what it must have`)
  return data
}

/** Where the issuer says that its keys are: by OpenID Connect Discovery, or else by RFC 8414. */
async function discover(issuer: string, signal: AbortSignal): Promise<string> {
  const { origin, pathname } = new URL(issuer)
  const path = pathname.replace(/\/$/, '')
  const ask = (url: string) => fetchJson(origin + url, Description, signal)
  const openId = ask(`${path}/.well-known/openid-configuration`)
  const found = await openId.catch(() => ask(`/.well-known/oauth-authorization-server${path}`))
  if (found.issuer !== issuer) throw new Error(`the issuer calls itself ${found.issuer}`)
  return found.jwks_uri
}

/** The keys that may be used, as JSON. */
async function fetchKeys({ issuer, jwksUrl }: TokenRules): Promise<string> {
  const signal = AbortSignal.timeout(LOAD_TIMEOUT_MS)
  const { keys } = await fetchJson(jwksUrl ?? (await discover(issuer, signal)), KeySet, signal)
  const named = keys.map((key) => ({ alg: ALGORITHM_OF[key.kty], ...key }))
  const usable = named.filter(({ alg = '' }) => ALGORITHMS.includes(alg))
  if (usable.length === 0) throw new Error('no key of the issuer can be used')
  return JSON.stringify({ keys: usable })
}

const reasonOf = ({ message, cause }: Error) =>
  cause instanceof Error && 'code' in cause ? String(cause.code) : message

/**
 * Finds the key of a token among those of an issuer. They are loaded now, now and then, and for a token whose key is not
 * known. A load that fails leaves those that are known; for other tokens there is a Problem 503.
 * @param onChange called when the keys are others than before
 */
export function createKeys(rules: TokenRules, onChange: () => void, tell: Tell): JWTVerifyGetKey {
  let known = createLocalJWKSet({ keys: [] })
  let failure: string | undefined
  let loading: Promise<void> | undefined
  let loadedAt = Number.NEGATIVE_INFINITY

  function use(found: string) {
    if (found === JSON.stringify(known.jwks())) return
    known = createLocalJWKSet(JSON.parse(found))
    onChange()
  }

  async function load() {
    const reason = (await fetchKeys(rules).then(use).catch(reasonOf)) ?? undefined
    if (reason !== failure) tell(rules.issuer, reason)
    failure = reason
    loadedAt = performance.now()
    loading = undefined
  }

  /** Loads once at a time. */
  const reload = () => (loading ??= load())
  void reload()
  setInterval(reload, RELOAD_INTERVAL_MS).unref()

  return async function find(header, token) {
    try {
      return await known(header, token)
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
    }
    if (performance.now() - loadedAt > COOL_DOWN_MS) await limited('keys', WAITING_MAX, reload, UNAVAILABLE)
    if (failure) throw refuse('keys', UNAVAILABLE, COOL_DOWN_MS / 1000)
    return known(header, token)
  }
}
