import type { IncomingMessage } from 'node:http'
import type { Config } from '../config.ts'
import { truncated } from './limits.ts'
import { Problem } from './problem.ts'

/** Lines that are given at a time, at most. */
const LINES_MAX = 500
const LINE_END = 0x0a

const LATE = new Problem(408, 'A line did not arrive in time.')

/**
 * The lines of a body, without their ends: each time those that have arrived together. Nothing more is read until more are
 * asked for. Each line may take `REQUEST_TIMEOUT_MS`. Of one that is longer than `MAX_BODY_BYTES`, one byte more is kept.
 * When the caller stops to ask, the connection stays open for its answer.
 * @throws Problem 400 when the body ends before it is complete, 408 for a line that is late
 */
export async function* linesOf(
  incoming: IncomingMessage,
  { MAX_BODY_BYTES: maxBytes, REQUEST_TIMEOUT_MS: timeoutMs }: Config,
): AsyncGenerator<Buffer[]> {
  const chunks: AsyncIterable<Buffer> = incoming.iterator({ destroyOnReturn: false })
  let rest: Buffer = Buffer.alloc(0)
  let since = performance.now()
  try {
    for await (const chunk of chunks) {
      // Here and not by a timer: a body that stalls is cut by `IDLE_TIMEOUT_MS`.
      if (timeoutMs > 0 && performance.now() - since > timeoutMs) throw LATE
      const bytes = Buffer.concat([rest, chunk])
      const lines: Buffer[] = []
      let start = 0
      for (let end = bytes.indexOf(LINE_END); end >= 0; end = bytes.indexOf(LINE_END, start)) {
        lines.push(bytes.subarray(start, Math.min(end, start + maxBytes + 1)))
        start = end + 1
        if (lines.length === LINES_MAX) yield lines.splice(0)
      }
      rest = bytes.subarray(start, start + maxBytes + 1)
      if (start === 0) continue
      if (lines.length > 0) yield lines
      since = performance.now()
    }
  } catch (error) {
    throw error instanceof Problem ? error : truncated
  }
  if (rest.length > 0) yield [rest]
}
