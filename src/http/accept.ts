import type { Context } from 'hono'
import { accepts } from 'hono/accepts'

type Range = { type: string; q: number }

/** Among equal ones, what is named beats what a wildcard covers; q has three digits. */
const NAMED = 0.0001

/** How much a media type is wanted: the most specific range counts (RFC 9110, section 12.5.1). */
function wanted(ranges: readonly Range[], mediaType: string): number {
  const q = (range: string) => ranges.find(({ type }) => type.toLowerCase() === range)?.q
  const named = q(mediaType)
  if (named !== undefined) return named && named + NAMED
  return q(mediaType.replace(/\/.*/, '/*')) ?? q('*/*') ?? 0
}

/** The media type that `Accept` wants most; the first of those that it wants equally, or not at all. */
export const preferred = <T extends string>(c: Context, mediaTypes: readonly [T, ...T[]]) =>
  accepts(c, {
    header: 'Accept',
    supports: [...mediaTypes],
    default: mediaTypes[0],
    match: (ranges) => mediaTypes.reduce((a, b) => (wanted(ranges, b) > wanted(ranges, a) ? b : a)),
  }) as T
