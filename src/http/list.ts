import type { Context } from 'hono'
import * as z from 'zod'
import { MAX_ID, NO_ID } from '../db/columns.ts'
import type { Get } from '../resource.ts'
import { Problem } from './problem.ts'

/** An id, in the description of the service. */
export const ID = { type: 'integer', format: 'int64', minimum: 1, maximum: MAX_ID, examples: [1] } as const

export const LIMIT_MAX = 1000
export const LIMIT_DEFAULT = 100
const IDS_MAX = 100
const CURSOR_RULE = 'is not a cursor of this list: take `next` of the page before'

/** A place in a list, opaque to clients: what the list goes by, and what the last row has of that, an id or a text. */
export const encodeCursor = (place: number | string) =>
  Buffer.from(`${typeof place === 'number' ? 1 : 2}:${place}`).toString('base64url')

/** The place that `encodeCursor` was given, if it has this form. */
function placeOf(cursor: string, form: RegExp): string {
  const text = Buffer.from(cursor, 'base64url').toString()
  const place = form.exec(text)?.[1]
  if (place && Buffer.from(text).toString('base64url') === cursor) return place
  throw new Problem(400, `cursor ${CURSOR_RULE}`)
}

/** The id that a page by id starts after. @throws Problem 400 for the cursor of another list, or for none at all */
export const idAfter = (cursor: string | undefined): number =>
  cursor === undefined ? NO_ID : Number(placeOf(cursor, /^1:([1-9]\d{0,15})$/))

/** The text that a page by a text starts after. @throws Problem 400 for the cursor of another list, or for none at all */
export const textAfter = (cursor: string | undefined): string =>
  cursor === undefined ? '' : placeOf(cursor, /^2:(\P{Cc}+)$/u)

/** A parameter of a query, as text. */
const queryText = (what: string) => z.string({ error: `must be given once, as ${what}` })

const numberUpTo = (maximum: number) =>
  queryText('a number')
    .refine((text) => /^[1-9]\d*$/.test(text) && Number(text) <= maximum, `must be a whole number from 1 to ${maximum}`)
    .transform(Number)

const LIMIT = { type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT, examples: [10] } as const

const ids = z.array(numberUpTo(MAX_ID).meta(ID)).max(IDS_MAX, `must be given at most ${IDS_MAX} times`)

/** The parameters of every list: `limit`, the rows of a page, `cursor`, where it starts, and `id`, which to look up. */
const listParameters = {
  limit: numberUpTo(LIMIT_MAX)
    .optional()
    .meta({ description: 'The items of a page.', ...LIMIT }),
  cursor: queryText('a cursor')
    // A text of 80 characters has up to 320 bytes.
    .regex(/^[\w-]{4,430}$/, CURSOR_RULE)
    .optional()
    .meta({ description: '`next` of the page before.', examples: [encodeCursor(10)] }),
  id: z
    // A parameter that is given once comes as it is.
    .preprocess((given: string | string[]) => [given].flat(), ids)
    .transform((ids) => [...new Set(ids)])
    .optional()
    .meta({ description: 'Only those with these ids, in this order, each once.', examples: [[1]] }),
}

/** Whether the client asks for what is there now, and not for a page that may be late (RFC 9111, section 5.2.1.4). */
export const wantsFresh = (c: Context) => /(^|[\s,])no-cache([\s,]|$)/i.test(c.req.header('cache-control') ?? '')

const isAlone = (query: object) => !('id' in query) || Object.keys(query).length === 1

/** The query of a list; `fields` are parameters of its own. `id` goes with none of them. */
export const listQuery = <T extends z.ZodRawShape>(fields: T) =>
  z
    .strictObject({ ...listParameters, ...fields })
    .refine(isAlone, { path: ['id'], error: 'goes with no other parameter' })

/** Rows of a list, and the cursor of the next page. Where ids were asked for, `missing` are those that no row has. */
export type Page<T> = { rows: T[]; next: string | null; missing?: number[] }

/** A page of at most `limit` rows, out of one row more if there are more. The list goes by what `placeOf` gives. */
export function pageOf<T>(rows: T[], limit: number, placeOf: (row: T) => number | string): Page<T> {
  const last = rows[limit - 1]
  if (rows.length <= limit || !last) return { rows, next: null }
  return { rows: rows.slice(0, limit), next: encodeCursor(placeOf(last)) }
}

/** The rows with these ids, in their order. They are asked for together, so they share a statement. */
export async function pageOfIds<T extends { version: number }>(ids: number[], get: Get<T>, until: number) {
  const found = await Promise.all(ids.map((id) => get(id, until)))
  const rows = found.flatMap((row) => row ?? []).map(({ version, ...row }) => row)
  return { rows, next: null, missing: ids.filter((_, i) => !found[i]) }
}

/** Where the next page is: the query of this one with another cursor. */
export const nextPath = (c: Context, next: string) =>
  `${c.req.path}?${new URLSearchParams({ ...c.req.query(), cursor: next })}`

/** The header that leads to the next page (RFC 8288), if there is one. */
export const nextLink = (c: Context, next: string | null): Record<string, string> =>
  next === null ? {} : { Link: `<${nextPath(c, next)}>; rel="next"` }
