import { hash } from 'node:crypto'
import { errors, jwtVerify } from 'jose'
import type { AuthOptions, TokenRules } from '../config.ts'
import { TokenRefused } from '../http/auth.ts'
import type { Identity } from '../http/env.ts'
import { Problem } from '../http/problem.ts'
import { ALGORITHMS, createKeys, type Tell } from './keys.ts'

/** How far the issuer's clock may be from ours. */
const CLOCK_SKEW_S = 30
/** Tokens that are remembered: about 5 MB. */
const REMEMBERED_MAX = 10_000
/** A subject has 255 characters at most (OpenID Connect Core, section 2). These can be kept and shown everywhere. */
const NAME = /^[^\p{Cc}\p{Cs}]{1,255}$/u

/** Three parts in base64url without padding (RFC 7515, section 7.1). */
const COMPACT = /^[\w-]+\.[\w-]+\.[\w-]+$/

const unfit = (claim: string) => new TokenRefused(`The token's ${claim} is not what it must be.`)

/** Tells the client what it may know. Only of tokens that the issuer has signed it says more than that they are not valid. */
function refuse(error: unknown): never {
  if (error instanceof errors.JWTExpired) throw new TokenRefused('The token has expired.')
  if (error instanceof errors.JWTClaimValidationFailed) throw unfit(error.claim)
  throw error instanceof Problem || error instanceof TokenRefused ? error : new TokenRefused('The token is not valid.')
}

const isName = (value: unknown): value is string => typeof value === 'string' && NAME.test(value)

/** What a token says, and when it ends, in ms since 1970. */
export type Verified = Identity & { scopes: readonly string[]; until: number }

/** Verifies tokens of an issuer (RFC 7519, RFC 8725), and remembers them by a hash for as long as they and its keys hold. */
function createVerifier(rules: TokenRules, known: string[], tell: Tell) {
  let remembered = new Map<string, Verified>()
  const getKey = createKeys(rules, () => (remembered = new Map()), tell)
  const { issuer, audience, types } = rules
  const claims = { issuer, audience, clockTolerance: CLOCK_SKEW_S, requiredClaims: ['exp', 'sub'] }

  async function check(token: string): Promise<Verified> {
    if (!COMPACT.test(token)) throw new TokenRefused('The token is not a JWT.')
    const { payload, protectedHeader } = await jwtVerify(token, getKey, { algorithms: ALGORITHMS, ...claims })
    const { sub, email, exp = 0, scope, scp } = payload
    const { typ = '' } = protectedHeader
    // "application/" may be left out (RFC 7515, section 4.1.9).
    if (!types.includes(typ.toLowerCase().replace(/^application\//, ''))) throw unfit('typ')
    if (!isName(sub)) throw unfit('sub')
    // The scopes that it names, as a text (RFC 9068) or as a list.
    const named = [scope, scp].flat().flatMap((words) => (typeof words === 'string' ? words.split(' ') : []))
    // In words of our own: a part of the token's text would keep all of it in memory.
    const scopes = rules.scopes ?? known.filter((name) => named.includes(name))
    return { issuer, subject: sub, person: isName(email) ? email : sub, scopes, until: (exp + CLOCK_SKEW_S) * 1000 }
  }

  return function verify(token: string) {
    const id = hash('sha256', token, 'base64')
    const found = remembered.get(id)
    if (found && Date.now() < found.until) return found
    // Where the keys change meanwhile, nobody looks here any more.
    const memory = remembered
    return check(token).then((verified) => {
      const [oldest = id] = memory.size < REMEMBERED_MAX ? [] : memory.keys()
      memory.delete(oldest)
      memory.set(id, verified)
      return verified
    }, refuse)
  }
}

/** What verifies tokens, for `authenticate`. It fails with TokenRefused, or with a Problem where it lacks the keys. */
export function createAuth({ tokens, iap, ...scopes }: AuthOptions, tell: Tell) {
  const verifier = (rules: TokenRules | undefined) => rules && createVerifier(rules, Object.values(scopes), tell)
  return { ...scopes, tokens: verifier(tokens), iap: verifier(iap) }
}
