import { createHash } from 'node:crypto'
import type { Context } from 'hono'
import type { Idempotency } from '../resource.ts'
import { Problem } from './problem.ts'

/** Printable ASCII, as the field's draft (draft-ietf-httpapi-idempotency-key-header) allows at most. */
export const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/

/**
 * The request's Idempotency-Key with the hash of `values`; nulls without it.
 * @throws Problem 400 for a key that is too long or has other characters
 */
export function idempotencyOf(c: Context, values: readonly unknown[]): Idempotency {
  const key = c.req.header('idempotency-key')
  if (key === undefined) return { key: null, hash: null }
  if (!IDEMPOTENCY_KEY.test(key)) {
    throw new Problem(400, 'Idempotency-Key must be 1 to 255 printable ASCII characters without spaces.')
  }
  return { key, hash: createHash('sha256').update(JSON.stringify(values)).digest('base64url') }
}
