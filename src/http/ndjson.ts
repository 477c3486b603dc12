import { pipeline } from 'node:stream/promises'
import type { Context } from 'hono'
import { createMiddleware } from 'hono/factory'
import { parseAccept } from 'hono/utils/accept'
import { answer, escapeLineEnds, NO_SNIFF } from './answer.ts'
import type { Env } from './env.ts'
import { limited } from './limits.ts'
import { idAfter, wantsFresh } from './list.ts'
import { Problem, problemFor, problemJson } from './problem.ts'
import { NDJSON_MEDIA_TYPE } from './validate.ts'

const HEADERS = { 'Cache-Control': 'private, no-store', Vary: 'Accept', 'Content-Type': NDJSON_MEDIA_TYPE, ...NO_SNIFF }

/** Whether `Accept` names ndjson, and nothing that it wants more (RFC 9110, section 12.5.1). */
export function wantsNdjson(c: Context): boolean {
  const ranges = parseAccept(c.req.header('accept') ?? '')
  const q = ranges.find(({ type }) => type.toLowerCase() === NDJSON_MEDIA_TYPE)?.q ?? 0
  return q > 0 && ranges.every((range) => range.q <= q)
}

const linesOf = (rows: object[]) => escapeLineEnds(rows.map((row) => `${JSON.stringify(row)}\n`).join(''))

/**
 * Answers with a line of JSON for each row, taking more when the client has read the last. At most `max` streams go in or
 * out at a time, more get 503. A failure amid the answer is a problem object as its last line; one before its first line is
 * thrown. The lines go to Node's response as they are: through the body of a `Response` each would be copied, into memory
 * that is only freed when V8 collects.
 */
export const ndjson = (c: Context<Env>, max: number, stream: AsyncGenerator<object[]>) =>
  limited('streams', max, async () => {
    const first = await stream.next()
    async function* body() {
      try {
        if (!first.done) yield linesOf(first.value)
        for await (const rows of stream) yield linesOf(rows)
      } catch (error) {
        yield `${problemJson(problemFor(error as Error, c), c.req.url, c.get('requestId'))}\n`
      }
    }
    // What was set on the way here, such as for CORS, goes along.
    c.env.outgoing.setHeaders(c.res.headers)
    c.env.outgoing.writeHead(200, { ...HEADERS, 'X-Request-Id': c.get('requestId') })
    // Rejects when the client hangs up: nobody is left to be told.
    await pipeline(body, c.env.outgoing).catch(() => {})
    return c.body(null)
  })

/** @throws Problem 400, which ends with `why`, for a parameter of the query other than the one that goes with lines */
export function assertOnly(known: string, c: Context, why = '') {
  const other = Object.keys(c.req.query()).find((name) => name !== known)
  if (other) throw new Problem(400, `${other} does not go with ${NDJSON_MEDIA_TYPE}${why}.`)
}

/**
 * Answers a list request that wants ndjson with all rows after its cursor; the others go on to the next handler.
 * `max` is that of `ndjson`.
 */
export function streamInstead(max: number, streamAfter: (id: number, fresh: boolean) => AsyncGenerator<object[]>) {
  return createMiddleware<Env>(async function streamInstead(c, next) {
    if (!wantsNdjson(c)) return next()
    assertOnly('cursor', c, ', which has every row')
    const after = idAfter(c.req.query('cursor'))
    if (c.req.method === 'HEAD') return answer(c, null, 200, HEADERS)
    return ndjson(c, max, streamAfter(after, wantsFresh(c)))
  })
}
