import type { IncomingMessage } from 'node:http'
import type { Context } from 'hono'
import { createMiddleware } from 'hono/factory'
import * as z from 'zod'
import type { Config } from '../config.ts'
import { underWay } from '../events.ts'
import type { Env } from './env.ts'
import { assertPlain, tellToSend, truncated } from './limits.ts'
import { assertOnly, ndjson } from './ndjson.ts'
import { Problem } from './problem.ts'
import { invalid, NDJSON_MEDIA_TYPE, postsLines } from './validate.ts'

/** How many lines are given at a time, at most: few beside other requests, which wait meanwhile. */
const linesMax = () => (underWay.requests > underWay.streams ? 50 : 250)

const LATE = new Problem(408, 'A line did not arrive in time.')

const passedOver = z.unknown().optional()
/** What a line may have as well, so that an answer can be sent back as it is: rows get these anew. */
export const MADE_HERE = { id: passedOver, createdAt: passedOver, updatedAt: passedOver }

/** It passes over the mark that some programs begin a file with (U+FEFF). */
const utf8 = new TextDecoder('utf-8', { fatal: true })

/**
 * The lines of a body, without their ends: each time those that have arrived together. Nothing more is read until more are
 * asked for. Each line may take `REQUEST_TIMEOUT_MS`. Of one that is longer than `MAX_BODY_BYTES`, not much more is kept.
 * When the caller stops to ask, the connection stays open for its answer.
 * @throws Problem 400 when the body ends before it is complete, 408 for a line that is late
 */
async function* linesOf(incoming: IncomingMessage, config: Config): AsyncGenerator<Buffer[]> {
  const chunks: AsyncIterable<Buffer> = incoming.iterator({ destroyOnReturn: false })
  // A character for each byte.
  let rest = ''
  let since = performance.now()
  try {
    for await (const chunk of chunks) {
      // Here and not by a timer: a body that stalls is cut by `IDLE_TIMEOUT_MS`.
      if (config.REQUEST_TIMEOUT_MS > 0 && performance.now() - since > config.REQUEST_TIMEOUT_MS) throw LATE
      const lines = `${rest}${chunk.toString('latin1')}`.split('\n')
      rest = lines.pop()?.slice(0, config.MAX_BODY_BYTES + 1) ?? ''
      if (lines.length === 0) continue
      while (lines.length > 0) yield lines.splice(0, linesMax()).map((line) => Buffer.from(line, 'latin1'))
      since = performance.now()
    }
  } catch (error) {
    throw error instanceof Problem ? error : truncated
  }
  if (rest !== '') yield [Buffer.from(rest, 'latin1')]
}

/** What a line holds. */
function parse<T>(line: Buffer, schema: z.ZodType<T>, maxBytes: number): T {
  if (line.length > maxBytes) throw new Problem(413, `The line must have at most ${maxBytes} bytes.`)
  let value: unknown
  try {
    value = JSON.parse(utf8.decode(line))
  } catch (error) {
    throw new Problem(400, `The line is not valid ${error instanceof SyntaxError ? 'JSON' : 'UTF-8'}.`)
  }
  const { data, error } = schema.safeParse(value)
  if (error) throw invalid(error.issues)
  return data
}

/**
 * Answers a POST of lines with what became of each, and at last how often each outcome was; other requests go on to the next
 * handler. A line that is refused does not hold up the others. A failure ends the answer with its problem.
 * @param create makes a row of a line. A Problem that it throws refuses the line, unless it is a 5xx
 */
export function createEachLine<T>(
  config: Config,
  schema: z.ZodType<T>,
  create: (c: Context<Env>, value: T) => Promise<{ id: number }>,
) {
  async function* results(c: Context<Env>, conflict: 'conflict' | 'skipped'): AsyncGenerator<object[]> {
    const counts = { lines: 0, created: 0, skipped: 0, conflict: 0, invalid: 0 }
    let line = 0

    async function resultOf(line: number, bytes: Buffer) {
      try {
        const { id } = await create(c, parse(bytes, schema, config.MAX_BODY_BYTES))
        counts.created++
        return { line, outcome: 'created', id }
      } catch (error) {
        if (!(error instanceof Problem) || error.status >= 500) throw error
        const outcome = error.status === 409 ? conflict : 'invalid'
        counts[outcome]++
        return { line, outcome, detail: error.message, errors: error.options.errors }
      }
    }

    tellToSend(c.env)
    for await (const lines of linesOf(c.env.incoming, config)) {
      const results = lines.flatMap((bytes) => {
        line++
        return String(bytes).trim() === '' ? [] : resultOf(line, bytes)
      })
      counts.lines += results.length
      yield await Promise.all(results)
    }
    yield [counts]
  }

  return createMiddleware<Env>(function createEachLine(c, next) {
    const onConflict = (c.req.queries('onConflict') ?? ['fail']).join()
    if (!['fail', 'skip'].includes(onConflict)) throw new Problem(400, 'onConflict must be fail or skip.')
    if (!postsLines(c)) return next()
    assertOnly('onConflict', c)
    if (c.req.header('idempotency-key') !== undefined) {
      throw new Problem(400, `Idempotency-Key does not go with ${NDJSON_MEDIA_TYPE}: repeat it with onConflict=skip.`)
    }
    assertPlain(c.env.incoming)
    // Each of their statements has a deadline, but all together have none.
    c.set('until', Number.POSITIVE_INFINITY)
    return ndjson(c, config.MAX_STREAMS, results(c, onConflict === 'skip' ? 'skipped' : 'conflict'))
  })
}
