import type { Context } from 'hono'
import * as z from 'zod'
import { MAX_ID } from '../db/columns.ts'

export const LIMIT_MAX = 1000
export const LIMIT_DEFAULT = 100

/** A place in a list: a version and the id of the last row, opaque to clients. */
export const encodeCursor = (id: number) => Buffer.from(`1:${id}`).toString('base64url')

/** The id that `encodeCursor` was given; undefined for anything that it did not make. */
function decodeCursor(cursor: string): number | undefined {
  const id = Number(/^1:([1-9]\d*)$/.exec(Buffer.from(cursor, 'base64url').toString())?.[1])
  return id <= MAX_ID && encodeCursor(id) === cursor ? id : undefined
}

/** A parameter of a query, as text. */
export const queryText = (what: string) => z.string({ error: `must be given once, as ${what}` })

const LIMIT_RULE = `must be a whole number from 1 to ${LIMIT_MAX}`
const LIMIT = { type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT, examples: [10] } as const

/** The parameters of every list: `limit`, the rows of a page, and `cursor`, which is read as the id it starts after. */
export const listParameters = {
  limit: queryText('a number')
    .refine((limit) => /^[1-9]\d*$/.test(limit) && Number(limit) <= LIMIT_MAX, LIMIT_RULE)
    .transform(Number)
    .optional()
    .meta({ description: 'The items of a page.', ...LIMIT }),
  cursor: queryText('a cursor')
    .transform(decodeCursor)
    .refine((id) => id !== undefined, 'is not a cursor of this service: take `next` of the page before')
    .optional()
    .meta({ description: '`next` of the page before.', pattern: '^[\\w-]{4,24}$', examples: [encodeCursor(10)] }),
}

/** A page of at most `limit` rows, out of one row more if there are more. */
export function pageOf<T extends { id: number }>(rows: T[], limit: number): { rows: T[]; next: string | null } {
  const last = rows[limit - 1]
  if (rows.length <= limit || !last) return { rows, next: null }
  return { rows: rows.slice(0, limit), next: encodeCursor(last.id) }
}

/** The header that leads to the next page (RFC 8288), if there is one. */
export function nextLink(c: Context, next: string | null): Record<string, string> {
  if (next === null) return {}
  const limit = c.req.query('limit')
  return { Link: `<${c.req.path}?${limit === undefined ? '' : `limit=${limit}&`}cursor=${next}>; rel="next"` }
}
