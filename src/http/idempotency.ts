import { hash } from 'node:crypto'
import type { Context } from 'hono'
import type { Env } from './env.ts'
import { Problem } from './problem.ts'

/** Printable ASCII, as the field's draft (draft-ietf-httpapi-idempotency-key-header) allows at most. */
export const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/

const digest = (value: unknown) => hash('sha256', JSON.stringify(value), 'base64url')

/**
 * The request's Idempotency-Key with the hash of `values`; nulls without it. Where requests have tokens, a key is only its
 * subject's: nobody gets the answer to another one's request, or takes a key away.
 * @throws Problem 400 for a key that is too long or has other characters
 */
export function idempotencyOf(c: Context<Env>, values: readonly unknown[]) {
  const key = c.req.header('idempotency-key')
  if (key === undefined) return { key: null, hash: null }
  if (!IDEMPOTENCY_KEY.test(key)) {
    throw new Problem(400, 'Idempotency-Key must be 1 to 255 printable ASCII characters without spaces.')
  }
  const identity = c.get('identity')
  return { key: identity ? digest([identity.issuer, identity.subject, key]) : key, hash: digest(values) }
}
