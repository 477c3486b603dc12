import type { Context } from 'hono'
import { answer } from './answer.ts'
import type { Env } from './env.ts'
import { problemFor, problemJson } from './problem.ts'

export const NDJSON_MEDIA_TYPE = 'application/x-ndjson'

/**
 * Answers with lines of JSON, taking more when the client has read the last. A failure amid the answer is a problem
 * object as its last line; one before its first line is thrown.
 */
export async function ndjson(
  c: Context<Env>,
  lines: AsyncGenerator<string, void, void>,
  headers: Record<string, string>,
): Promise<Response> {
  let next = (await lines.next()).value
  const utf8 = new TextEncoder()
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (typeof next !== 'string') return controller.close()
        controller.enqueue(utf8.encode(next))
        try {
          next = (await lines.next()).value
        } catch (error) {
          next = `${problemJson(problemFor(error as Error, c), c.req.url, c.get('requestId'))}\n`
        }
      },
      async cancel() {
        await lines.return()
      },
    },
    { highWaterMark: 0 },
  )
  return answer(c, body, 200, { ...headers, 'Content-Type': NDJSON_MEDIA_TYPE })
}
