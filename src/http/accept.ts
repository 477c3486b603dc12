import type { Context } from 'hono'
import { parseAccept } from 'hono/utils/accept'

/**
 * Whether `Accept` names this media type, and nothing that it wants more (RFC 9110, section 12.5.1). A type that matches
 * `first` wins where both are wanted alike.
 */
export function prefers(c: Context, mediaType: string, first?: RegExp): boolean {
  const accept = c.req.header('accept') ?? ''
  if (!accept.toLowerCase().includes(mediaType)) return false
  const ranges = parseAccept(accept)
  const wanted = ranges.find(({ type }) => type.toLowerCase() === mediaType)?.q ?? 0
  return wanted > 0 && ranges.every(({ type, q }) => (first?.test(type) ? q < wanted : q <= wanted))
}

/** Whether a person's browser asks. Programs get JSON, also those that take HTML as well. */
export const wantsHtml = (c: Context) => prefers(c, 'text/html', /json$/i)
