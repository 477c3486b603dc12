import type { Get } from '../resource.ts'
import { answer, json, typed } from './answer.ts'
import { Problem } from './problem.ts'
import { found, problemOf } from './refusal.ts'
import type { ItemContext } from './validate.ts'

/** A client may keep an answer, but must ask again each time: another request may have changed it. */
export const CACHE = { 'Cache-Control': 'private, no-cache' }

/** The strong entity tag of a version (RFC 9110, section 8.8.3). */
export const entityTag = (version: number) => `"${version}"`

/** What If-Match and If-None-Match may hold. */
const ENTITY_TAGS = /^\*$|^[ \t,]*(?:(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"[ \t]*(?:,[ \t,]*|$))+$/
/** The strong tags of versions in such a list. It finds none between two tags, where no digits stand. */
const VERSIONS = /(?<!W\/)"([1-9]\d{0,8})"/g

function assertTags(name: string, value: string) {
  if (!ENTITY_TAGS.test(value)) throw new Problem(400, `${name} must be * or a list of entity tags, as in "1", "2".`)
}

/**
 * The versions that `If-Match` lets a change start from; undefined for any. Tags are compared strongly.
 * @throws Problem 400 when it is malformed
 */
export function ifMatch(value: string | undefined): number[] | undefined {
  if (value === undefined || value === '*') return undefined
  assertTags('If-Match', value)
  return Array.from(value.matchAll(VERSIONS), ([, version]) => Number(version))
}

/**
 * Whether a version is one of those that `If-None-Match` names; undefined without it. Tags are compared weakly.
 * @throws Problem 400 when it is malformed
 */
export function ifNoneMatch(value: string | undefined): ((version: number) => boolean) | undefined {
  if (value === undefined) return undefined
  assertTags('If-None-Match', value)
  return (version) => value === '*' || value.includes(entityTag(version))
}

/** The row whose id is in the path. */
const present = async <T>(c: ItemContext, noun: string, get: Get<T>) =>
  found(noun, await get(c.req.valid('param').id, c.get('until')))

/**
 * The versions that a change may start from (RFC 9110, section 13.2.2). If-None-Match, rare on a change, is compared
 * with the present version, and the change then bound to that, or to none.
 * @param get gets the row, with its version
 */
export async function startingVersions(c: ItemContext, noun: string, get: Get<{ version: number }>) {
  const versions = ifMatch(c.req.header('if-match'))
  const excluded = ifNoneMatch(c.req.header('if-none-match'))
  if (!excluded) return versions
  const { version } = await present(c, noun, get)
  return excluded(version) ? [] : (versions ?? [version]).filter((other) => other === version)
}

/**
 * Answers with the row whose id is in the path: 200, or 304 where If-None-Match names its version.
 * @throws Problem 404 where there is none, 412 where If-Match does not name its version
 */
export async function answerPresent<T extends { version: number }>(c: ItemContext, noun: string, get: Get<T>) {
  const { version, ...row } = await present(c, noun, get)
  if (ifMatch(c.req.header('if-match'))?.includes(version) === false) throw problemOf(noun, { outcome: 'stale' })
  const headers = versionHeaders(version)
  const isKnown = ifNoneMatch(c.req.header('if-none-match'))?.(version)
  return isKnown ? typed<typeof row, 200>(answer(c, null, 304, headers)) : json(c, row, 200, headers)
}

/** The headers of an answer that holds what is there at this version. */
export const versionHeaders = (version: number) => ({ ...CACHE, ETag: entityTag(version) })
