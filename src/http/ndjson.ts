import type { Context } from 'hono'
import type { Env } from './env.ts'
import { problemDetails, problemFor } from './problem.ts'

export const NDJSON_MEDIA_TYPE = 'application/x-ndjson'

/**
 * Answers with one JSON object a line, taking the next batch when the client has read the last. A failure amid the
 * answer is a problem object as its last line; one before its first line is thrown.
 */
export async function ndjson(
  c: Context<Env>,
  batches: AsyncGenerator<readonly object[], void, void>,
  headers: Record<string, string>,
): Promise<Response> {
  const lines = (batch: readonly object[]) => batch.map((object) => `${JSON.stringify(object)}\n`).join('')
  const utf8 = new TextEncoder()
  const first = await batches.next()
  let next: string | undefined = first.done ? undefined : lines(first.value)
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (next === undefined) return controller.close()
        controller.enqueue(utf8.encode(next))
        try {
          const { value, done } = await batches.next()
          next = done ? undefined : lines(value)
        } catch (error) {
          const { status, message } = problemFor(error as Error, c)
          next = lines([problemDetails(status, message, c.req.path, c.get('requestId'))])
        }
      },
      async cancel() {
        await batches.return()
      },
    },
    { highWaterMark: 0 },
  )
  return new Response(body, { headers: { ...headers, 'Content-Type': NDJSON_MEDIA_TYPE } })
}
